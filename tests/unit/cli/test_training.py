"""Bad input to training: exit code 2, one message, nothing written, no cluster started."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.store import Store
from ada2i.training.request import TrainSpec, prepare
from ada2i.usecases import check_started, newest_unfinished
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.data.tables import corpus, write, written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modalities", "tx"], "`--modalities` must be a combination of the letters t (text)"),
        (["--modalities", ""], "`--modalities` must be a combination of the letters"),
        (["--preset", "best"], "`preset` must be one of reference"),
        (["--settings", "melt"], "`settings` must be one of iemocap, meld"),
        (["--seeds", "1,x"], "`--seeds` must be whole numbers separated by commas, but is '1,x'"),
        (["--seeds", "-1"], "`--seeds` must be whole numbers"),
        (["--seeds", "²"], "`--seeds` must be whole numbers"),
        (["--seeds", "1,1"], "`training.seeds`"),
        (["--workers", "0"], "`resources.workers`"),
        (["--workers", "1000"], "needs 1000 CPUs, but the cluster has"),
        (["--set", "training.epoch=5"], "did you mean `training.epochs`?"),
        (["--set", "training.epochs"], "`--set` takes FIELD=VALUE"),
        (["--set", "training.epochs=0", "--set", "model.encoder.dropout=1"], "`model.encoder.dropout`"),
        (["--allow", "copies"], "`--allow` must name codes of findings, but 'copies' is not one. Known codes are"),
        (["--model", "My Model"], "A model's name must be lower-case letters"),
        (["--root", "gs://bucket"], "must be a folder, file:///"),
        (["--root", "s3://"], "must be a folder, file:///"),
    ],
)
def test_train_refuses(run: Run, root: Path, demo: str, arguments: list[str], message: str) -> None:
    assert message in refused(run, "train", demo, "--root", str(root), *arguments)
    assert written(root) == []


def test_all_mistakes_show_at_once(run: Run, demo: str) -> None:
    message = refused(run, "train", demo, "--set", "training.epochs=0", "--set", "a.b=1", "--set", "balance.alpha=[1]")
    for field in ("`training.epochs`", "`a.b` is not a config field", "`balance.alpha`"):
        assert field in message


def test_train_without_features(run: Run, root: Path) -> None:
    message = refused(run, "train", "nowhere.parquet", "--root", str(root))
    assert "nowhere.parquet must be a file (.parquet, .csv" in message
    assert written(root) == []


@pytest.mark.parametrize("column", ["dialogue_id", "utterance_index", "label", "split"])
@pytest.mark.parametrize("command", [["import", "table"], ["train"]])
def test_a_missing_column_is_named(run: Run, root: Path, tmp_path: Path, command: list[str], column: str) -> None:
    columns = corpus()
    del columns[column]
    table = write(tmp_path / "table.parquet", columns)
    assert f"`{column}`" in refused(run, *command, str(table), "--root", str(root))
    assert written(root) == []


def test_a_root_below_a_file(run: Run, tmp_path: Path, demo: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = refused(run, "train", demo, "--root", str(tmp_path / "file" / "x"))
    assert "must be a writable folder" in message


def test_no_s3_credentials(run: Run, demo: str) -> None:
    message = refused(run, "train", demo, "--root", "s3://bucket/prefix")
    assert "needs S3 credentials, but found none. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


def test_no_s3_credentials_for_features(run: Run, root: Path) -> None:
    assert "needs S3 credentials" in refused(run, "train", "s3://bucket/features", "--root", str(root))
    assert written(root) == []


def test_wrong_s3_endpoint_fails_soon(run: Run, demo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fake")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    started = time.monotonic()
    message = refused(run, "train", demo, "--root", "s3://bucket/prefix")
    assert "must be reachable at http://127.0.0.1:9" in message
    assert time.monotonic() - started < 15


def test_features_that_do_not_match_their_manifest(run: Run, root: Path, demo: str) -> None:
    folder = storage.local_path(demo)
    assert folder is not None
    part = sorted(folder.glob("part-*.parquet"))[-1]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    message = refused(run, "train", demo, "--root", str(root))
    assert f"{part.name} must hold the {len(data)} bytes with SHA-256" in message
    assert written(root) == []


def test_features_that_lack_a_modality(run: Run, root: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", corpus())
    everything = ["--modalities", "tav", "--root", str(root)]
    assert "has no visual, only text" in refused(run, "train", str(table), *everything)
    assert run("import", "table", str(table), "--root", str(tmp_path / "o"))[0] == 0
    (features,) = (tmp_path / "o" / "features" / "t").iterdir()
    assert "has no visual, only text" in refused(run, "train", str(features), *everything)
    assert written(root) == []


def test_a_corpus_that_lacks_a_requested_modality_is_refused_before_extraction(
    run: Run, root: Path, tmp_path: Path
) -> None:
    splits = ["train"] * 8 + ["test"] * 2
    rows = [f"d{d},{u},{split},{('calm', 'glad')[d % 2]},word {u}" for d, split in enumerate(splits) for u in range(3)]
    (tmp_path / "utterances.csv").write_text("\n".join(["dialogue_id,utterance_index,split,label,text", *rows]))
    error = refused(run, "train", f"corpus:folder:{tmp_path}", "--modalities", "ta", "--root", str(root))
    assert "must hold the requested modalities, but has no audio, only text" in error
    assert written(root) == []


def test_the_encoder_of_a_raw_corpus_needs_a_modality_and_a_name(run: Run, root: Path) -> None:
    for given in ("hashing", "words=hashing", "text="):
        error = refused(run, "train", "demo-media", "--encoder", given, "--root", str(root))
        assert "`--encoder` takes MODALITY=NAME with a modality of text, audio, visual" in error


def test_config_prints_what_would_be_used(run: Run) -> None:
    shown: dict[str, Any] = json.loads(ok(run, "config", "--settings", "meld", "--set", "training.seeds=[1,2]"))
    assert shown["model"]["hidden_dim"] == 200
    assert shown["training"]["seeds"] == [1, 2]


def test_config_refuses(run: Run) -> None:
    assert "not a config field" in refused(run, "config", "--set", "x=1")


def test_a_run_id_that_was_never_started_is_refused(run: Run, root: Path, demo: str) -> None:
    error = refused(run, "train", demo, "--run", "nope", "--root", str(root))
    assert "`--run` must name a run that was started in" in error
    assert "there is no run nope. Unfinished runs: none." in error
    assert "choose the run to resume" in refused(run, "train", demo, "--run", "nope", "--resume", "--root", str(root))
    assert written(root) == []


def test_resume_finds_the_newest_unfinished_run_of_the_same_options(root: Path, demo: str) -> None:
    store = Store.open(str(root))
    spec = TrainSpec(features=demo, overrides={"training.epochs": 3})
    for run_id, more in (("20260101-a", {}), ("20260102-b", {}), ("20260103-c", {"training.epochs": 4})):
        changed = spec.model_copy(update={"overrides": spec.overrides | more})
        prepare(changed, root=store.root, run_id=run_id)
    assert store.unfinished_runs() == ["20260103-c", "20260102-b", "20260101-a"]
    assert newest_unfinished(spec, store) == "20260102-b"
    storage.put(store.run("20260102-b").result_uri, b"{}")
    assert newest_unfinished(spec, store) == "20260101-a"
    with pytest.raises(NotFoundError, match="`--resume` needs an unfinished run of these features and this config"):
        newest_unfinished(spec.model_copy(update={"preset": "paper"}), store)
    check_started(store, "20260101-a")
    with pytest.raises(NotFoundError, match="Did you mean 20260103-c"):
        check_started(store, "20260103-d")
