"""Bad input through the real command: exit code 2, one message, nothing written, no cluster started."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ada2i import cli, storage
from ada2i.data.demo import write_demo_corpus
from ada2i.records import seed_uri
from ada2i.registry.versions import register, version_uri
from ada2i.training import cluster
from tests.unit.data.tables import corpus, write, written
from tests.unit.evaluation.predictions import predictions
from tests.unit.registry.finished import finished_run

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _nobody_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, no credentials, and a cluster of one's own is a failure."""
    for name in ("RAY_API_SERVER_ADDRESS", "ADA2I_ROOT", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))

    def refuse() -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(cluster, "cluster", refuse)
    monkeypatch.chdir(tmp_path)
    storage._client_for.cache_clear()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command as the shell would; return exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ada2i", *arguments])
        with pytest.raises(SystemExit, match=r"^\d+$") as end:
            cli.main()
        streams = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return code, streams.out, streams.err

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def demo(tmp_path: Path) -> str:
    return write_demo_corpus((tmp_path / "features").as_uri(), dialogues=10)


def refused(run: Run, *arguments: str) -> str:
    """Run a command that must be refused; return its message."""
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modalities", "tx"], "`--modalities` must be different letters of t (text)"),
        (["--modalities", ""], "`--modalities` must be different letters"),
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
        (["--allow", "copies"], "`--allow` must name codes of findings, but 'copies' is none. Known are"),
        (["--model", "My Model"], "A model's name must be of small letters"),
        (["--json", "none/result.json"], "must name a file in a folder that exists"),
        (["--json", "."], "must name a file"),
        (["--root", "gs://bucket"], "must be a folder, file:///"),
        (["--root", "s3://"], "must be a folder, file:///"),
    ],
)
def test_train_refuses(run: Run, root: Path, demo: str, arguments: list[str], message: str) -> None:
    assert message in refused(run, "train", demo, "--root", str(root), *arguments)
    assert written(root) == []


def test_all_mistakes_show_at_once(run: Run, demo: str) -> None:
    message = refused(run, "train", demo, "--set", "training.epochs=0", "--set", "a.b=1", "--set", "balance.alpha=[1]")
    for field in ("`training.epochs`", "`a.b` is no config field", "`balance.alpha`"):
        assert field in message


def test_train_without_features(run: Run, root: Path) -> None:
    message = refused(run, "train", "nowhere.parquet", "--root", str(root))
    assert "nowhere.parquet must be a .parquet file or a folder with some, but holds none" in message
    assert written(root) == []


def test_import_without_a_source(run: Run, root: Path) -> None:
    message = refused(run, "import", "table", "nowhere", "--root", str(root))
    assert "nowhere must be a .parquet file or a folder with some" in message
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
    assert "must be a folder that can be written" in message


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
    assert "has no visual, only text" in refused(run, "train", str(table), "--root", str(root))
    assert run("import", "table", str(table), "--root", str(tmp_path / "o"))[0] == 0
    (features,) = (tmp_path / "o" / "features" / "t").iterdir()
    assert "has no visual, only text" in refused(run, "train", str(features), "--root", str(root))
    assert written(root) == []


@pytest.mark.parametrize(
    ("version", "message"), [("ada2i@x", "must be MODEL@NUMBER"), ("ada2i@3", "a version ada2i@3")]
)
def test_registry_show_refuses(run: Run, root: Path, version: str, message: str) -> None:
    assert message in refused(run, "registry", "show", version, "--root", str(root))
    assert written(root) == []


def registered(root: Path, run_id: str, data: bytes) -> Path:
    """Register a run with these predictions as a version of ``m``; return its folder."""
    result = finished_run(root.as_uri(), run_id, seeds=(12,))
    storage.put(storage.join(seed_uri(result.run_uri, 12), "predictions.parquet"), data)
    folder = storage.local_path(version_uri(root.as_uri(), register(result.run_uri, root=root.as_uri(), model="m")))
    assert folder is not None
    return folder


def test_compare_says_who_is_better(run: Run, root: Path) -> None:
    for run_id, right in (("run-a", 0.5), ("run-b", 0.8)):
        registered(root, run_id, predictions(right=right))
    shown = ok(run, "compare", "m@1", "m@2", "--root", str(root))
    assert "A: m@1, B: m@2\n" in shown
    assert "m@2 is better by 0." in shown
    assert "more than chance" in shown
    assert "SYNTHETIC" not in shown
    found = json.loads(ok(run, "compare", "m@1", "m", "--json", "--root", str(root)))
    assert (found["first"], found["second"], found["dialogues"], found["synthetic"]) == ("m@1", "m@2", 31, False)
    assert f"{found['differences']['macro_f1']['difference']:+.4f}" in shown


def test_compare_calls_synthetic_data_synthetic(run: Run, root: Path) -> None:
    folder = registered(root, "run-a", predictions())
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"synthetic": false', '"synthetic": true'))
    shown = ok(run, "compare", "m", "m", "--root", str(root))
    assert "No difference that 31 dialogues could show: m@1 minus m@1 is +0.0000 weighted F1" in shown
    assert "A: m@1, B: m@1 (SYNTHETIC)\n" in shown
    assert "SYNTHETIC data: numbers prove plumbing" in shown


def test_compare_refuses(run: Run, root: Path) -> None:
    first = registered(root, "run-a", predictions())
    registered(root, "run-b", predictions(dialogues=30))
    assert "first differ where m@1 has dialogue d" in refused(run, "compare", "m@1", "m@2", "--root", str(root))
    assert "must be MODEL@NUMBER" in refused(run, "compare", "m@1", "m@x", "--root", str(root))
    assert "a version m@3" in refused(run, "compare", "m@3", "m@1", "--root", str(root))
    (first / "predictions.parquet").write_bytes(b"tampered")
    assert "predictions.parquet must hold the" in refused(run, "compare", "m@1", "m@1", "--root", str(root))


@pytest.mark.parametrize("arguments", [["train"], ["train", "demo", "--nonsense"], ["nonsense"], ["registry", "show"]])
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: " in err


def test_brackets_in_messages_are_no_markup(run: Run, root: Path) -> None:
    message = refused(run, "train", "[bold]x[/bold]", "--root", str(root))
    assert "[bold]x[/bold] must be a .parquet file" in message


def ok(run: Run, *arguments: str) -> str:
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    return out


def test_config_prints_what_would_be_used(run: Run) -> None:
    shown: dict[str, Any] = json.loads(ok(run, "config", "--settings", "meld", "--set", "training.seeds=[1,2]"))
    assert shown["model"]["hidden_dim"] == 200
    assert shown["training"]["seeds"] == [1, 2]


def test_config_refuses(run: Run) -> None:
    assert "no config field" in refused(run, "config", "--set", "x=1")


def test_an_empty_registry(run: Run, root: Path) -> None:
    assert "No versions in" in ok(run, "registry", "list", "--root", str(root))
    assert json.loads(ok(run, "registry", "list", "--json", "--root", str(root))) == []
    assert written(root) == []


def test_importing_prints_the_location(run: Run, root: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", corpus(), dataset="tiny")
    uri = ok(run, "import", "table", str(table), "--root", str(root)).strip()
    assert storage.exists(storage.join(uri, "manifest.json"))
    assert ok(run, "import", "table", str(table), "--root", str(root)).strip() == uri


def test_an_audit_of_what_training_accepts(run: Run, demo: str, tmp_path: Path) -> None:
    assert "training accepts it" in ok(run, "audit", demo, "--html", str(tmp_path / "x.html"))
    assert (tmp_path / "x.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads(ok(run, "audit", demo, "--json"))["synthetic"] is True


def test_an_audit_of_what_training_refuses(run: Run, tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", corpus() | {"label": [0, 0, 0, 0, 0, 0, 0, 1]})
    code, out, err = run("audit", str(table))
    assert (code, err) == (2, "")
    assert "training would refuse it (absent-class)" in out
    assert "training accepts it, allowing absent-class" in ok(run, "audit", str(table), "--allow", "absent-class")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere must be a .parquet file or a folder with some, but holds none"),
        (["nowhere", "--allow", "all"], "`--allow` must name codes of findings, but 'all' is none. Known are"),
        (["nowhere", "--html", "none/x.html"], "`--html` must name a file in a folder that exists"),
    ],
)
def test_audit_refuses(run: Run, arguments: list[str], message: str) -> None:
    assert message in refused(run, "audit", *arguments)


def test_importing_says_where_and_what(run: Run, root: Path, tmp_path: Path) -> None:
    table = str(write(tmp_path / "table.parquet", corpus(), dataset="tiny"))
    code, out, err = run("import", "join", table, "--text", table, "--root", str(root))
    assert code == 0
    assert storage.exists(storage.join(out.strip(), "manifest.json"))
    counts = "train 2 dialogues, 5 utterances; dev 1 dialogues, 1 utterances; test 1 dialogues, 2 utterances; table"
    assert err.startswith(counts)
    assert err.endswith("; missing vectors: audio 1; zero vectors: none\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pickle", "bad.pkl", "--dataset", "melt"], "`dataset` must be one of iemocap"),
        (["pickle", "bad.pkl", "--dataset", "meld"], "names `builtins.eval`, which no published feature file needs"),
        (["pickle", "none.pkl", "--dataset", "meld"], "none.pkl does not exist"),
        (["meld", "nowhere"], "must be one of MELD's three CSVs"),
        (["join", "nowhere", "--text", "x"], "nowhere must be a .parquet file or a folder"),
    ],
)
def test_imports_refuse(run: Run, root: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    assert message in refused(run, "import", *arguments, "--root", str(root))
    assert written(root) == []
