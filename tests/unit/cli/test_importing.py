"""Imports print where a set lies, and say what is wrong with a source."""

from pathlib import Path

import pytest

from ada2i import storage
from tests.unit.cli.commands import Run, refused
from tests.unit.data.tables import corpus, write, written


def test_import_without_a_source(run: Run, root: Path) -> None:
    message = refused(run, "import", "table", "nowhere", "--root", str(root))
    assert "nowhere must be a file (.parquet, .csv, .jsonl, .ndjson, .feather, .arrow) or a folder with such" in message
    assert written(root) == []


def test_importing_prints_the_location(run: Run, root: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", corpus(), dataset="tiny")
    code, uri, _ = run("import", "table", str(table), "--root", str(root))
    assert code == 0
    assert storage.exists(storage.join(uri.strip(), "manifest.json"))
    assert run("import", "table", str(table), "--root", str(root))[:2] == (0, uri)


def test_importing_says_where_and_what(run: Run, root: Path, tmp_path: Path) -> None:
    table = str(write(tmp_path / "table.parquet", corpus(), dataset="tiny"))
    code, out, err = run("import", "join", table, "--text", table, "--root", str(root))
    assert code == 0
    assert storage.exists(storage.join(out.strip(), "manifest.json"))
    counts = "train 2 dialogues, 5 utterances; dev 1 dialogue, 1 utterance; test 1 dialogue, 2 utterances"
    assert err.startswith(f"dataset tiny: {counts}\n")
    assert "; missing vectors: audio 1; zero vectors: none\n" in err
    assert f"Next: `ada2i audit {out.strip()}`" in err


def test_what_is_not_read_and_has_no_label_is_named(run: Run, root: Path, tmp_path: Path) -> None:
    columns = corpus() | {"label": [0, None, 1, 0, 1, 0, None, 1], "video_feat": [[1.0, 2.0]] * 8}
    code, _, err = run("import", "table", str(write(tmp_path / "x.parquet", columns)), "--root", str(root))
    assert code == 0
    assert "train 2 dialogues, 5 utterances (1 without a label); dev 1 dialogue, 1 utterance; test" in err
    assert "not read: `video_feat`: 2 numbers a row, looks like vectors; name it visual_feat\n" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pickle", "bad.pkl", "--dataset", "melt"], "`dataset` must be one of iemocap"),
        (["pickle", "bad.pkl", "--dataset", "meld"], "names `builtins.eval`, which no published feature file needs"),
        (["pickle", "none.pkl", "--dataset", "meld"], "none.pkl does not exist"),
        (["meld", "nowhere"], "must be one of MELD's three CSVs"),
        (["join", "nowhere", "--text", "x"], "nowhere must be a file (.parquet, .csv"),
    ],
)
def test_imports_refuse(run: Run, root: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    assert message in refused(run, "import", *arguments, "--root", str(root))
    assert written(root) == []


def test_errors_that_training_refuses_are_said(run: Run, root: Path, tmp_path: Path) -> None:
    columns = corpus([("train", 4), ("dev", 2), ("test", 4)])
    for name in ("text_feat", "audio_feat"):
        columns[name][6:] = columns[name][:4]  # test repeats train
    code, _, err = run("import", "table", str(write(tmp_path / "x.parquet", columns)), "--root", str(root))
    assert code == 0
    assert "audit error cross-split-copies" in err
    assert "refuses these errors: correct the source, or add `--allow cross-split-copies` to `ada2i train" in err
    assert "trains." not in err


def test_what_a_split_lacks_is_named(run: Run, root: Path, tmp_path: Path) -> None:
    lengths = [("train", 2)] * 10
    columns = {name: values for name, values in corpus(lengths).items() if name != "split"}
    arguments = ("import", "table", str(write(tmp_path / "x.parquet", columns)), "--labels", "calm,cross,sad")
    code, _, err = run(*arguments, "--split-by", "dialogue", "--shares", "60,20,20", "--root", str(root))
    assert code == 0
    assert "splits: train/dev/test = 60/20/20 % of the dialogues (6/2/2), in the order of the SHA-256 of" in err
    assert "no utterance in test has the class calm, sad\n" in err or "no utterance in test has the class sad\n" in err
    assert "`--shares` must be" in refused(
        run, *arguments, "--split-by", "time", "--shares", "1,2", "--root", str(root)
    )
