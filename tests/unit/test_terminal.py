"""What a command says when it is interrupted."""

from pathlib import Path

import pytest

from ada2i.extraction.request import ExtractSpec, prepare
from ada2i.terminal import TerminalHooks
from ada2i.training.request import TrainSpec
from ada2i.training.request import prepare as prepare_training
from tests.unit.extraction.talks import OWN, extracted, talk


def test_an_interrupted_command_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = TerminalHooks("The same command with `--run r1` resumes it.")
    with pytest.raises(KeyboardInterrupt), hooks.job("predict", "file:///p/r1", "http://127.0.0.1:1"):
        raise KeyboardInterrupt
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "r1: the same command with `--run r1` resumes it."
    stopped = "Interrupted. All processes of the job have been stopped."
    assert lines[-1] == f"{stopped} The same command with `--run r1` resumes it."


def test_restricted_licences_are_named_before_an_extraction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ada2i.extraction.encoders.registry.check", lambda *_: None)  # openSMILE may not be installed
    talk(tmp_path / "talks", video=False)
    for audio, warned in (("egemapsv02", True), ("prosody", False)):
        spec = ExtractSpec(kind="folder", location=str(tmp_path / "talks"), encoders=OWN | {"audio": audio})
        job = prepare(spec, root=str(tmp_path / "root"), run_id=audio)
        with TerminalHooks().job("extract", job.uri, ""):
            pass
        shown = "Restricted use, also of models trained on such vectors. audio: egemapsv02, audEERING research licence"
        assert (shown in capsys.readouterr().err) == warned


def test_restricted_licences_are_named_before_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk(tmp_path / "talks", 30)
    (tmp_path / "talks" / "corpus.json").write_text('{"licence": "research only", "synthetic": true}')
    features = extracted(tmp_path / "talks", tmp_path / "root").features
    job = prepare_training(
        TrainSpec(features=features, allow=("cross-split-copies",)), root=str(tmp_path / "root"), run_id="run"
    )
    with TerminalHooks().job("train", job.uri, ""):
        pass
    assert "Restricted use, also of models trained on such vectors. corpus: research only." in capsys.readouterr().err
