"""The local stack's parts that need no server."""

import json
from pathlib import Path

import pytest

from ada2i.errors import ResourceError, UnreachableError
from infra import certificates, local, services
from infra import stack as stacks
from infra.services import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, services.choose_ports({}, preferred=False), tmp_path / "ray")
    services.write_secrets(made)
    return made


def test_secrets_are_made_once(layout: Layout) -> None:
    before = layout.environment()
    services.write_secrets(layout)
    assert layout.environment() == before


def test_ports_stay_where_they_were_and_differ(layout: Layout) -> None:
    again = services.choose_ports(layout.ports, preferred=True)
    assert again == layout.ports
    assert len(set(again.values())) == len(again)


def test_settings_of_another_stack_do_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "PREFECT_API_URL", "RAY_ADDRESS", "ADA2I_ROOT"):
        monkeypatch.setenv(name, "elsewhere")
    assert "elsewhere" not in services._base_environment().values()


def test_flows_and_the_server_get_their_settings_from_the_shell(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADA2I_ALERTS", "ADA2I_FEATURES"):
        monkeypatch.setenv(name, "mine")
        assert services._worker_environment(layout)[name] == "mine"
        assert name not in services._base_environment()  # Ray's processes need no webhook
    monkeypatch.setenv("ADA2I_ROOT", "elsewhere")
    assert services._worker_environment(layout)["ADA2I_ROOT"] == "s3://ada2i"


@pytest.mark.parametrize(
    ("named", "hosts"),
    [(None, "127.0.0.1,localhost"), ("a.example,localhost", "a.example,localhost,127.0.0.1")],
)
def test_no_proxy_is_used_for_this_machine(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, named: str | None, hosts: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    if named:
        monkeypatch.setenv("no_proxy", named)
    for environment in (services._base_environment(), layout.environment()):
        assert (environment["NO_PROXY"], environment["no_proxy"]) == (hosts, hosts)


def test_a_first_start_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(layout: Layout) -> None:
        (layout.folder / "prefect-auth").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(services, "write_environment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stacks.start(tmp_path, names=[], deploy=False)
    monkeypatch.undo()
    assert stacks.start(tmp_path, names=[], deploy=False).running == {}
    stacks.purge(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("status", [0, 503])
def test_a_server_that_does_not_answer_is_not_called_a_wrong_file(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(services, "_ask_prefect", lambda *_, **__: (status, b""))
    with pytest.raises(UnreachableError, match=r"did not in time\. Run `make up` again; its log is "):
        services.is_deployed(layout)
    monkeypatch.setattr(services, "_automation_ids", lambda *_: [])
    with pytest.raises(UnreachableError, match="must answer the automation `mine`, but did not in time"):
        services._replace_automation(layout, {"name": "mine"})


def test_dotenv_is_written_and_known_again(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "_DOTENV", tmp_path / ".env")
    assert local._write_dotenv(layout)
    assert local._write_dotenv(layout)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    names = [line.partition("=")[0] for line in (tmp_path / ".env").read_text().splitlines()[1:]]
    assert names == ["PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"]
    assert not local._is_ours(tmp_path / "another")


def test_a_dotenv_of_another_origin_stays(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "_DOTENV", tmp_path / ".env")
    (tmp_path / ".env").write_text("EDITOR=ed\n")
    assert not local._write_dotenv(layout)
    assert (tmp_path / ".env").read_text() == "EDITOR=ed\n"


def test_nothing_to_stop_is_harmless(tmp_path: Path) -> None:
    stacks.stop(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    stacks.stop(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    mode = tmp_path.stat().st_mode
    with pytest.raises(
        ResourceError, match=r"holds other things, such as thesis\.tex\. Choose another with `--folder`"
    ):
        stacks.start(tmp_path)
    with pytest.raises(ResourceError, match="holds other things"):
        stacks.purge(tmp_path)
    stacks.stop(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert tmp_path.stat().st_mode == mode


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ResourceError, match=r"state.json must have version 1, but has 99\. Stop the stack with"):
        stacks.load(tmp_path)


def test_the_start_prints_where_secrets_are_but_not_their_values(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    local._explain(layout, plain_shell=False)
    said = capsys.readouterr().out
    environment = layout.environment()
    assert str(layout.prefect_auth) in said
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "PREFECT_API_AUTH_STRING"):
        assert environment[name] not in said
    assert layout.token.read_text() not in said


def test_a_stack_from_before_the_certificate_gets_one(layout: Layout) -> None:
    (layout.folder / certificates.KEY).unlink()
    (layout.folder / certificates.SETTINGS).write_text('[jwt.signing]\nkey = "old"\n')
    services.write_secrets(layout)
    assert "[https.client]" in (layout.folder / certificates.SETTINGS).read_text()
    assert (layout.folder / certificates.KEY).exists()
