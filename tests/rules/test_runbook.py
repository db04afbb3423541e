"""Each command of the runbook is run by a test, needs a Kubernetes cluster, or is marked as not run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text()
PROGRAM = re.compile(r"(?:make|ada2i|prefect|docker|grafana|git|\./secrets\.sh) ")
CONTAINERS = "containers/test_compose.py"
RUN_BY = {
    "./secrets.sh": ("containers/host.py", '"./secrets.sh"'),
    "ada2i audit": ("unit/cli/test_auditing.py", '"audit"'),
    "ada2i doctor": (CONTAINERS, '"ada2i", "doctor"'),
    "ada2i registry history": ("unit/cli/test_registry.py", '["history"]'),
    "ada2i registry list": ("unit/cli/test_registry.py", '["list"]'),
    "ada2i registry pull": ("unit/cli/test_registry.py", '"registry", "pull"'),
    "ada2i registry rollback": ("unit/cli/test_gating.py", '"registry", "rollback"'),
    "ada2i registry verify": ("unit/cli/test_registry.py", '"registry", "verify"'),
    "docker compose --profile serve up": (CONTAINERS, '"--profile", "serve", "up"'),
    "docker compose build": ("containers/host.py", "def build_product"),
    "docker compose exec -T postgres pg_dump": (CONTAINERS, '"pg_dump", "-U", "prefect", "-Fc", "prefect"'),
    "docker compose exec -T postgres pg_restore": (CONTAINERS, '"pg_restore", "-U", "prefect", "-d", "prefect"'),
    "docker compose exec prefect-worker": ("containers/host.py", '"exec", "-T", service, ENTRYPOINT'),
    "docker compose run --rm deploy": ("containers/conftest.py", '"run", "--rm", "deploy"'),
    "docker compose stop": (CONTAINERS, '"stop", "prefect-server", "prefect-worker"'),
    "docker compose up": (CONTAINERS, '"up", "--detach", "--wait"'),
    "make down": ("conftest.py", "local.stop("),
    "make status": ("integration/test_local_stack.py", '"status"'),
    "make up": ("conftest.py", "local.start("),
    "prefect deployment run": ("integration/test_text_and_audio.py", '"deployment", "run"'),
    "prefect flow-run retry": ("faults/test_flow_kill.py", '"flow-run", "retry"'),
}


def commands() -> list[str]:
    """Return the commands in blocks and sentences that are not marked as not run."""
    found, in_block, marked = [], False, False
    for line in TEXT.splitlines():
        if line.startswith("```"):
            in_block, marked = not in_block, False
        elif in_block:
            marked |= line.startswith("#") and "not run" in line
            found += [] if marked or "not run" in line else [line]
        elif "not run" not in line:
            found += re.findall(r"`([^`]+)`", line)
    parts = [part.strip() for command in found for part in command.split("&&")]
    return [part for part in parts if PROGRAM.match(part) and part != "make test-containers"]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_each_command_is_run_by_a_test_or_marked(command: str) -> None:
    known = [name for name in RUN_BY if f"{command} ".startswith(f"{name} ")]
    assert known, f"Mark {command!r} as not run in docs/runbook.md, or name the test that runs it in RUN_BY."


@pytest.mark.parametrize("name", RUN_BY)
def test_the_test_of_a_command_runs_it(name: str) -> None:
    assert any(f"{command} ".startswith(f"{name} ") for command in commands())
    place, text = RUN_BY[name]
    assert text in (ROOT / "tests" / place).read_text()
