"""Extraction from the command line: what is refused before a cluster is started, and the list of encoders."""

import json
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.extraction.request import RESULT, ExtractionRequest, ExtractionResult, ExtractSpec, Work, prepare
from ada2i.importers.demo import write_demo_corpus
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.extraction.talks import OWN, talk

pytest.importorskip("transformers")


def test_the_list_of_encoders(run: Run) -> None:
    rows = json.loads(ok(run, "encoders", "--json"))
    assert {row["modality"] for row in rows} == {"text", "audio", "visual"}
    assert next(row for row in rows if row["name"] == "egemapsv02")["width"] == 88
    assert "non-commercial" in next(row for row in rows if row["name"] == "is10")["licence"]
    shown = ok(run, "encoders")
    assert "minilm (default)" in shown
    assert "hf:ID or hf:FOLDER" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["melt", "talks"], "`corpus` must be one of folder, meld"),
        (["folder", "nowhere"], "nowhere must be a folder with a corpus, but does not exist"),
        (["folder", "talks", "--text", "berts"], "The text encoder must be one of minilm"),
        (["folder", "talks", "--set", "encoders.visual.sise=1"], "may be size, detection_side"),
        (["folder", "talks", "--workers", "0"], "`workers`: Input should be greater than or equal to 1"),
    ],
)
def test_refused_before_anything_starts(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    talk(tmp_path / "talks", video=False)
    assert message in refused(run, "extract", *arguments, "--root", str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_an_extraction_that_has_ended_is_shown_again(run: Run, tmp_path: Path) -> None:
    talk(tmp_path / "talks", video=False)
    arguments = ["extract", "folder", "talks", "--root", str(tmp_path / "root"), "--run", "mine"]
    arguments += [part for modality, spec in OWN.items() for part in (f"--{modality}", str(spec))]
    uri = f"{(tmp_path / 'root').as_uri()}/extraction/runs/mine"
    result = ExtractionResult(
        features=write_demo_corpus((tmp_path / "root").as_uri()),
        work={"text": Work(encoded=1, reused=2, utterances=3)},
        problems=0,
        seconds=1,
    )
    assert "there is no run mine. Unfinished runs: none." in refused(run, *arguments)
    spec = ExtractSpec.model_validate({"kind": "folder", "location": "talks", "encoders": OWN})
    assert prepare(spec, root=str(tmp_path / "root"), run_id="mine").uri == uri
    storage.put(storage.join(uri, RESULT), result.to_json())
    code, out, err = run(*arguments)
    assert (code, out) == (0, f"{result.features}\n")
    assert "text: 3 utterances, 1 encoded, 2 encoded before" in err
    for shown in ("classes: neutral", "modalities and widths: text", f"Next: `ada2i audit {result.features}`"):
        assert shown in err
    code, out, err = run(*arguments, "--json")
    assert ExtractionResult.model_validate_json(out) == result
    assert ExtractionRequest.load(storage.join(uri, "request.json")).kind == "folder"
