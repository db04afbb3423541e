"""The Compose file in containers, by the commands of docs/runbook.md: a night, a killed worker, new credentials."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from infra import certificates
from tests.containers.host import SERVICES, Host
from tests.containers.stack import RAY, outcome, panels, prefect, seconds, start, workers
from tests.ports import answers, listening
from tests.runs import until

MODEL = "nights"
SHORT = {"training.epochs": 6}
LONG = {
    "training.epochs": 40,
    "training.early_stopping_epochs": 40,
}  # longer than a worker takes to be found and killed
ENDLESS = {"training.epochs": 100_000, "training.early_stopping_epochs": 100_000}
WATCHED_SECONDS = 180
_MARGIN = 45  # seconds at both ends: a scrape, and Ray's report of a metric


def _sql(host: Host, statement: str) -> str:
    """Run a statement in Prefect's database; return what it prints."""
    command = ["psql", "-U", "prefect", "-d", "prefect", "--tuples-only", "--no-align", "-c", statement]
    return host.compose("exec", "-T", "postgres", *command).decode().strip()


@pytest.fixture(scope="module")
def night(host: Host) -> tuple[float, float]:
    """When a night that extracts media started and ended; after it, a model is trained by two workers and promoted."""
    began = time.time()
    given = {"settings": "demo", "seeds": [1], "workers": 2, "promote": True}
    media = start(host, "train-ada2i", **given, features="demo-media", model="media", overrides=SHORT)
    assert outcome(host, media) in ("Promoted", "Refused")
    ended = time.time()
    assert outcome(host, start(host, "train-ada2i", **given, features="demo", model=MODEL)) == "Promoted"
    return began, ended


def test_the_doctor_finds_nothing_wrong(host: Host) -> None:
    lines = host.inside("prefect-worker", "ada2i", "doctor").splitlines()
    assert {line.split()[0] for line in lines if line.strip()} == {"ok", "skipped"}


@pytest.mark.parametrize("own", [False, True], ids=["without a certificate", "with a certificate of one's own"])
def test_no_inner_port_of_s3_answers_without_its_certificate(host: Host, tmp_path: Path, own: bool) -> None:
    container = host.compose("ps", "--quiet", "s3").decode().strip()
    process = host.podman("inspect", "--format", "{{.State.Pid}}", container).strip()
    address = host.podman(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container
    ).strip()
    ports = listening(process)
    assert {9333, 19333, 8888, 18888} <= set(ports)  # of master and filer, HTTP and gRPC
    certificates.make(tmp_path)
    found = {port: list(answers(address, port, tmp_path if own else None)) for port in ports}
    health = [("http /status", 200)]  # of S3 itself, which says only that it runs
    assert {port: answered for port, answered in found.items() if answered} == {8333: health}


def test_panels_of_an_extraction_have_data_while_it_goes_on(night: tuple[float, float]) -> None:
    shown = {title: seconds(expression, *night) for title, expression in panels("extraction")}
    assert [title for title, found in shown.items() if not found] == []
    first, *others = shown.values()
    assert all(set(range(min(first) + _MARGIN, max(first) - _MARGIN)) <= found for found in others)


def test_predictions_run_twenty_at_once(host: Host, night: tuple[float, float]) -> None:
    del night
    given = {"source": "demo", "version": f"{MODEL}@champion"}
    runs = [start(host, "predict-emotions", **given) for _ in range(20)]
    assert {outcome(host, run) for run in runs} == {"Completed"}


def test_panels_of_training_and_registry_have_data_at_every_second(host: Host, night: tuple[float, float]) -> None:
    del night
    given = {"features": "demo", "settings": "demo", "preset": "paper", "seeds": [1], "model": "endless"}  # all losses
    run = start(host, "train-ada2i", **given, workers=2, overrides=ENDLESS)
    first = f'ray_ada2i_epoch{{run="{run}"}}'
    until(lambda: seconds(first, time.time() - 1, time.time()), "a first epoch", 600.0)
    began = time.time()
    time.sleep(WATCHED_SECONDS + _MARGIN)
    prefect(host, "POST", f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    inner = set(range(int(began) + _MARGIN, int(began) + WATCHED_SECONDS))
    inner -= seconds('up{job="ray"} == 0', began, time.time())  # a busy machine answers Prometheus too late
    assert len(inner) > WATCHED_SECONDS / 2
    for dashboard in ("training", "registry"):
        shown = {title: seconds(expression, began, time.time()) for title, expression in panels(dashboard)}
        assert {title: sorted(inner - found) for title, found in shown.items() if inner - found} == {}
    assert outcome(host, run) == "Cancelled"
    until(lambda: not workers(host, run), "the end of the job", 600.0)


def test_a_killed_worker_costs_nothing(host: Host, night: tuple[float, float]) -> None:
    del night
    given = {"features": "demo", "settings": "demo", "seeds": [2], "model": MODEL, "promote": True}
    run = start(host, "train-ada2i", **given, workers=2, overrides=LONG)
    until(lambda: workers(host, run), "a training", 600.0)
    killed, *_ = sorted(name for name in host.podman("ps", "--format", "{{.Names}}").split() if "ray-worker" in name)
    process = int(host.podman("inspect", "--format", "{{.State.Pid}}", killed))
    os.kill(process, signal.SIGKILL)
    assert outcome(host, run) in ("Promoted", "Refused")
    until(lambda: "3 alive" in host.inside("prefect-worker", "ada2i", "doctor"), "the worker's return", 600.0)


def test_a_copy_of_the_database_is_restored(host: Host, night: tuple[float, float]) -> None:
    del night
    runs = "SELECT count(*) FROM flow_run"
    before = _sql(host, runs)
    copy = host.compose("exec", "-T", "postgres", "pg_dump", "-U", "prefect", "-Fc", "prefect")
    host.compose("stop", "prefect-server", "prefect-worker")
    _sql(host, "DELETE FROM flow_run")
    assert _sql(host, runs) == "0"
    host.compose(
        "exec", "-T", "postgres", "pg_restore", "-U", "prefect", "-d", "prefect", "--clean", "--if-exists", given=copy
    )
    host.compose("up", "--detach", "--wait", *SERVICES)
    assert _sql(host, runs) == before


def test_new_credentials_replace_old_ones(host: Host, night: tuple[float, float]) -> None:
    del night
    old = {name: host.secret(name) for name in ("ray-token", "prefect-auth", "s3-credentials", "database-password")}
    secrets = host.source / "infra" / "compose" / "secrets"
    for name in (*old, "s3-identities"):
        (secrets / name).unlink()
    host.make_secrets()
    assert all(host.secret(name) != value for name, value in old.items())
    _sql(host, f"ALTER USER prefect PASSWORD '{host.secret('database-password')}'")
    host.compose("up", "--detach", "--wait", "--force-recreate", *SERVICES)
    answer = httpx.get(f"{RAY}/api/jobs/", headers={"Authorization": f"Bearer {old['ray-token']}"}, timeout=60.0)
    assert answer.status_code in (401, 403)
    user, password = old["prefect-auth"].split(":")
    assert httpx.get("http://127.0.0.1:4200/api/admin/version", auth=(user, password)).status_code == 401
    given = {"features": "demo", "settings": "demo", "seeds": [2], "model": MODEL, "promote": True}
    assert outcome(host, start(host, "train-ada2i", **given, workers=2, overrides=SHORT)) in ("Promoted", "Refused")
    keys = old["s3-credentials"].encode()
    refused = "cat >/tmp/old && AWS_SHARED_CREDENTIALS_FILE=/tmp/old ada2i registry list"
    with pytest.raises(AssertionError, match="refused the S3 credentials"):
        host.compose("exec", "-T", "prefect-worker", "sh", "-c", refused, given=keys)


def test_the_endpoint_answers_with_the_champion(host: Host, night: tuple[float, float]) -> None:
    del night
    host.compose("--profile", "serve", "up", "--detach", "--wait", "serve")
    with httpx.Client(base_url="http://127.0.0.1:8100", timeout=60.0) as client:
        dialogue = client.get("/example").raise_for_status().json()
        assert client.post("/predict", json=dialogue).status_code == 401
        allowed = {"Authorization": f"Bearer {host.secret('serve-token')}"}
        answer = client.post("/predict", json=dialogue, headers=allowed).raise_for_status().json()
    assert answer["version"].startswith(f"{MODEL}@")
    assert len(answer["turns"]) == len(dialogue["turns"])


def test_a_change_of_code_rebuilds_no_package(host: Host) -> None:
    changed = host.source / "ada2i" / "errors.py"
    changed.write_text(changed.read_text() + "# Changed.\n")
    built = host.build_product()
    assert "Downloading" not in built
    assert built.count("Using cache") >= 8


def test_the_image_for_gpus_has_cuda_and_the_same_python_and_ray(host: Host) -> None:
    host.build_product("cuda")
    shown = "import platform, ray, ada2i; print(platform.python_version(), ray.__version__)"
    images = [f"docker.io/library/ada2i:0.1.0-{variant}" for variant in ("cpu", "cuda")]
    plain, cuda = (host.podman("run", "--rm", image, "python", "-c", shown) for image in images)
    assert plain == cuda
    built_for = host.podman(
        "run", "--rm", images[1], "python", "-c", "import torch, ada2i.training.fit; print(torch.version.cuda)"
    )
    assert built_for.startswith("13.")
