"""An S3 server that fails intermittently costs time only; refused credentials are reported once."""

import os
import threading
import uuid
from collections.abc import Iterator

import pytest
import torch

from ada2i import cli, storage
from ada2i.errors import AccessError
from ada2i.jobs import cluster
from ada2i.records import SeedResult
from ada2i.registry.aliases import current, history, move
from ada2i.registry.verify import verify
from ada2i.registry.versions import find, register, version_uri, versions
from ada2i.training.launch import launch
from infra.stack import Stack
from tests.faults.s3_proxy import EVERY_FAULT, Fault, Proxy, every, first, never, proxied
from tests.runs import final_weights, job_of, listener, prepared, registered_weights, seed_result
from tests.unit.registry.finished import finished_run

pytestmark = pytest.mark.integration

QUICK: tuple[Fault, ...] = tuple(fault for fault in EVERY_FAULT if fault != "stall")
EPOCHS = 6
OUTAGE_SECONDS = 60.0


@pytest.fixture
def proxy(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that is the only way to S3 for this process."""
    with proxied(stack.environment()["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.address)
        yield running


@pytest.fixture
def place(root: str) -> str:
    return f"{root}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def behind(stack: Stack) -> Iterator[Proxy]:
    """A proxy that is the only way to S3 for this process and for a Ray cluster of its own."""
    with pytest.MonkeyPatch.context() as patch, proxied(stack.environment()["AWS_ENDPOINT_URL"]) as running:
        for name in stack.layout.ray_environment():
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", running.address)
        with cluster.cluster() as ray:
            patch.setenv("RAY_API_SERVER_ADDRESS", ray.address)
            yield running


def test_signatures_stay_valid_on_the_way(proxy: Proxy, place: str) -> None:
    data = os.urandom(3_000_000)
    storage.put(storage.join(place, "a b+c"), data)
    assert storage.get(storage.join(place, "a b+c")) == data
    assert storage.children(place) == ["a b+c"]
    assert proxy.seen["PUT"] == 1


@pytest.mark.parametrize("fault", QUICK)
def test_every_call_lives_through_it(proxy: Proxy, place: str, fault: Fault) -> None:
    proxy.plan = every(2, [fault])
    for number in range(4):
        uri = storage.join(place, f"{number}")
        storage.put(uri, b"some bytes")
        assert storage.get(uri) == b"some bytes"
        assert storage.exists(uri)
    assert storage.children(place) == ["0", "1", "2", "3"]
    storage.delete_folder(place)
    assert storage.children(place) == []
    assert proxy.injected[fault] > 5


@pytest.mark.parametrize("fault", QUICK)
def test_a_run_is_registered_once(proxy: Proxy, place: str, fault: Fault) -> None:
    uri = finished_run(place, "run-a").run_uri
    proxy.plan = every(2, [fault])
    version = register(uri, root=place, model="m")
    assert register(uri, root=place, model="m") == version
    move(place, "m", "champion", version.number, expected=None, by="anna", reason="first")
    proxy.plan = never
    assert proxy.injected[fault] > 5
    assert [each.number for each in versions(place, "m")] == [1]
    assert [each.number for each in history(place, "m", "champion")] == [1]
    assert verify(place, "m") == []


@pytest.mark.parametrize("name", ["claim.json", "runs/", "manifest.json", "aliases/champion/1.json"])
def test_a_conditional_write_whose_answer_is_lost_counts(proxy: Proxy, place: str, name: str) -> None:
    uri = finished_run(place, "run-a").run_uri
    proxy.plan = first("PUT", f"registry/m/{'' if '/' in name else 'versions/1/'}{name}", ["lost"])
    version = register(uri, root=place, model="m")
    move(place, "m", "champion", version.number, expected=None, by="anna", reason="first")
    assert proxy.injected["lost"] == 1
    assert [each.number for each in versions(place, "m")] == [1]
    found = current(place, "m", "champion")
    assert found is not None
    assert found.n == 1
    assert verify(place, "m") == []


def test_two_registrations_at_once_through_faults_take_two_numbers(proxy: Proxy, place: str) -> None:
    runs = [finished_run(place, name).run_uri for name in ("run-a", "run-b")]
    proxy.plan = every(3, QUICK)
    threads = [threading.Thread(target=register, args=(uri,), kwargs={"root": place, "model": "m"}) for uri in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.plan = never
    found = versions(place, "m")
    assert sorted(each.run_id for each in found) == ["run-a", "run-b"]
    assert len({each.number for each in found}) == 2
    assert verify(place, "m") == []


def test_a_short_outage_is_waited_for(proxy: Proxy, place: str) -> None:
    storage.put(storage.join(place, "a"), b"before")
    back = proxy.outage(12.0)
    storage.put(storage.join(place, "a"), b"after")
    assert storage.get(storage.join(place, "a")) == b"after"
    back.join()


class FailOnce:
    """A plan for a whole run: a fault now and then, and once an outage, in the middle of a checkpoint."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.usual = every(11)
        self.lock = threading.Lock()
        self.back: threading.Thread | None = None

    def __call__(self, method: str, path: str) -> Fault | None:
        """Choose what to break."""
        with self.lock:
            if self.back is None and method == "PUT" and "/checkpoints/" in path and "optimizer" in path:
                self.back = self.proxy.outage(OUTAGE_SECONDS)
                return "reset"
        return self.usual(method, path)


def test_a_whole_run_ends_in_the_same_objects(
    stack: Stack, root: str, behind: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = prepared(root, "calm", **{"training.epochs": EPOCHS})
    launch(job_of(calm), listener(lambda _: None))
    wanted = final_weights(calm), seed_result(calm)
    behind.plan = plan = FailOnce(behind)
    overrides = {
        "training.epochs": EPOCHS,
        "training.early_stopping_epochs": 16,
        "balance.method": "ada2i",
        "balance.start_epoch": 2,
    }
    overrides["model.encoder.feedforward_dim"] = 1024
    settings = [word for name, value in overrides.items() for word in ("--set", f"{name}={value}")]
    try:
        code = run_cli(monkeypatch, "train", "demo", "--seeds", "1", *settings, "--root", root, "--model", "stormy")
    finally:
        behind.plan = never
    assert code == 0
    assert plan.back is not None
    plan.back.join()
    assert set(EVERY_FAULT) <= set(behind.injected)
    (version,) = versions(root, "stormy")
    assert verify(root, "stormy") == []
    weights, result = final_weights(version.run_uri), seed_result(version.run_uri)
    assert weights.keys() == wanted[0].keys()
    assert all(torch.equal(weights[name], wanted[0][name]) for name in weights)
    assert scores(result) == scores(wanted[1])
    assert registered_weights(version_uri(root, find(root, "stormy"))).keys() == weights.keys()
    assert "Traceback" not in capsys.readouterr().err


def scores(result: SeedResult) -> list[tuple[int, float, float]]:
    """Return what no clock changes of a training's history."""
    return [(epoch.step, epoch.loss, epoch.dev_loss) for epoch in result.history]


def test_credentials_that_expire_during_a_run_are_one_error(
    root: str, behind: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expired = threading.Event()

    def expire(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/checkpoints/" in path:
            expired.set()
        return "expired" if expired.is_set() else None

    behind.plan = expire
    try:
        code = run_cli(monkeypatch, "train", "demo", "--seeds", "1", "--root", root, "--model", "expiring")
    finally:
        behind.plan = never
    reported = capsys.readouterr().err
    assert code == 2
    assert reported.count("error:") == 1
    assert "refused the S3 credentials (ExpiredToken)" in reported
    assert "Traceback" not in reported
    assert versions(root, "expiring") == []


def test_wrong_credentials_are_one_error(
    stack: Stack, place: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Through a proxy of its own: the client of the other address has the right ones.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    assert run_cli(monkeypatch, "train", "demo", "--root", place) == 2
    reported = capsys.readouterr().err
    assert reported.count("error:") == 1
    assert "refused the S3 credentials (SignatureDoesNotMatch)" in reported
    assert "Traceback" not in reported
    with pytest.raises(AccessError, match="refused the S3 credentials"):
        storage.put(storage.join(place, "a"), b"")


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr("sys.argv", ["ada2i", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)
