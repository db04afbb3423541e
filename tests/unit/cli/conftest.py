"""Fixtures of the commands' tests: the real command, without a cluster or a network."""

import sys
from pathlib import Path

import pytest

from ada2i import cli, usecases
from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs import cluster
from ada2i.storage.s3 import client_for
from ada2i.training import launch
from tests.unit.cli.commands import Run


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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

    for module in (cluster, usecases, launch):
        monkeypatch.setattr(module, "cluster", refuse)
    monkeypatch.chdir(tmp_path)
    client_for.cache_clear()


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
