"""Versions: numbered without a lock, complete or invisible, one per run."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import Ada2iError, ConfigError, DataError, IntegrityError, NotFoundError
from ada2i.registry.versions import SWEPT, Version, find, models, read_file, register, version_uri, versions
from tests.unit.registry.finished import ENVIRONMENT, WEIGHTS, finished_run, registered, unfinished

REGISTER = """
import sys, time
from pathlib import Path
from ada2i.registry.versions import register
root, run_uri, start = sys.argv[1:]
print(flush=True)
while not Path(start).exists():
    time.sleep(0.001)
print(register(run_uri, root=root, model="ada2i").number)
assert "torch" not in sys.modules
"""


def test_a_version_holds_all_of_the_best_seed(root: str) -> None:
    result = finished_run(root, "run-a")
    version = register(result.run_uri, root=root, model="ada2i")
    assert (version.model, version.number, version.run_id) == ("ada2i", 1, "run-a")
    best = max(result.seeds, key=lambda seed: seed.dev.weighted_f1)
    assert version.seed == best.seed
    assert version.dev_weighted_f1 == best.dev.weighted_f1
    uri = version_uri(root, version)
    assert set(version.files) == {
        "weights.safetensors",
        "config.json",
        "result.json",
        "predictions.parquet",
        "environment.json",
        "report.html",
        "README.md",
    }
    found = {name: storage.get_checked(storage.join(uri, name), **e.model_dump()) for name, e in version.files.items()}
    assert found["weights.safetensors"] == WEIGHTS + str(best.seed).encode()
    assert found["predictions.parquet"] == f"predictions of {best.seed}".encode()
    assert found["README.md"].startswith(b"---\n")
    assert found["README.md"].endswith(b"\nREADME.md of run-a\n")
    assert version.code == "ada2i 0.1.0"
    assert version.ray_job_id is None


def test_the_same_run_is_the_same_version(root: str) -> None:
    first = registered(root, "run-a")
    second = registered(root, "run-b")
    assert register(first.run_uri, root=root, model="ada2i") == first
    assert [v.number for v in versions(root, "ada2i")] == [1, 2]
    assert second.number == 2
    assert register(first.run_uri, root=root, model="other").number == 1  # each model counts for itself


def test_threads_get_distinct_numbers(root: str) -> None:
    runs = [finished_run(root, f"run-{n}").run_uri for n in range(8)]
    start = threading.Barrier(8)

    def go(run_uri: str) -> int:
        start.wait()
        return register(run_uri, root=root, model="ada2i").number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(go, runs))
    assert sorted(numbers) == list(range(1, 9))
    assert [v.run_uri for v in versions(root, "ada2i")] == [runs[numbers.index(n)] for n in range(1, 9)]


def test_threads_with_one_run_get_one_version(root: str) -> None:
    run_uri = finished_run(root, "run-a").run_uri
    start = threading.Barrier(8)

    def go(_: int) -> Version:
        start.wait()
        return register(run_uri, root=root, model="ada2i")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(go, range(8)))
    assert all(version == found[0] for version in found)
    assert versions(root, "ada2i") == [found[0]]


def test_processes_get_distinct_numbers(root: str, tmp_path: Path) -> None:
    runs = [finished_run(root, f"run-{n}").run_uri for n in range(8)]
    start = tmp_path / "start"
    processes = [
        subprocess.Popen([sys.executable, "-c", REGISTER, root, uri, str(start)], stdout=subprocess.PIPE, text=True)
        for uri in runs
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported everything, and waits
    start.touch()
    numbers = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(numbers) == list(range(1, 9))
    assert len(versions(root, "ada2i")) == 8


def objects(root: str, number: int) -> dict[str, bytes]:
    """Return the objects of a version's folder."""
    uri = storage.join(root, "registry", "ada2i", "versions", str(number))
    return {name: storage.get(storage.join(uri, name)) for name in storage.children(uri)}


def test_a_crash_before_the_manifest_is_invisible_and_completed_later(root: str) -> None:
    uri = unfinished(root, "run-a")
    assert versions(root, "ada2i") == []
    with pytest.raises(NotFoundError, match=r"must hold a version ada2i, but does not"):
        find(root, "ada2i")
    assert registered(root, "run-b").number == 2  # the claimed number stays the first run's
    assert [v.number for v in versions(root, "ada2i")] == [2]
    assert register(uri, root=root, model="ada2i").number == 1
    assert [v.run_id for v in versions(root, "ada2i")] == ["run-a", "run-b"]


def test_a_crash_right_after_the_claim_leaves_a_gap_and_nothing_else(root: str) -> None:
    uri = unfinished(root, "run-a", at="/runs/run-a.json")
    assert versions(root, "ada2i") == []
    version = register(uri, root=root, model="ada2i")
    assert version.number == 2
    assert versions(root, "ada2i") == [version]


def test_what_the_environment_says_of_code_and_job_is_recorded(root: str) -> None:
    result = finished_run(root, "run-a")
    facts = {**ENVIRONMENT, "code": "4f2c9e1", "ray_job_id": "run-a-0"}
    storage.put(storage.join(result.run_uri, "environment.json"), json.dumps(facts).encode())
    version = register(result.run_uri, root=root, model="ada2i")
    assert (version.code, version.ray_job_id) == ("4f2c9e1", "run-a-0")


@pytest.mark.parametrize(("data", "message"), [(b"{", "must be JSON, but"), (b"[]", "must be a JSON object")])
def test_a_damaged_environment(root: str, data: bytes, message: str) -> None:
    result = finished_run(root, "run-a")
    storage.put(storage.join(result.run_uri, "environment.json"), data)
    with pytest.raises(DataError, match=rf"environment\.json {message}"):
        register(result.run_uri, root=root, model="ada2i")


def test_remains_with_other_bytes_are_never_overwritten(root: str) -> None:
    uri = unfinished(root, "run-a")
    storage.put(storage.join(uri, "report.html"), b"rendered anew")
    before = objects(root, 1)
    version = register(uri, root=root, model="ada2i")
    assert version.number == 2
    assert register(uri, root=root, model="ada2i") == version
    assert versions(root, "ada2i") == [version]
    assert objects(root, 1) == {**before, "manifest.json": SWEPT}


def test_a_swept_number_is_never_given_again(root: str) -> None:
    uri = unfinished(root, "run-a")
    storage.put(storage.join(root, "registry", "ada2i", "versions", "1", "manifest.json"), SWEPT)
    assert versions(root, "ada2i") == []
    assert registered(root, "run-b").number == 2
    assert register(uri, root=root, model="ada2i").number == 3
    assert register(uri, root=root, model="ada2i").number == 3
    with pytest.raises(NotFoundError, match="must hold a version ada2i@1, but does not"):
        find(root, "ada2i", 1)


def test_a_claim_whose_answer_was_lost_is_known_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.put_if_absent

    def answered_late(uri: str, data: bytes) -> bool:
        return real(uri, data) and False

    monkeypatch.setattr(storage, "put_if_absent", answered_late)
    assert registered(root, "run-a").number == 1
    assert registered(root, "run-b").number == 2


def test_a_pointer_to_another_runs_version_is_refused(root: str) -> None:
    first = registered(root, "run-a")
    registered(root, "run-b")
    storage.put(storage.join(root, "registry", "ada2i", "runs", "run-a.json"), b"2")
    with pytest.raises(IntegrityError, match=r"run-a\.json must name the version number of run run-a, but names 2"):
        register(first.run_uri, root=root, model="ada2i")


def test_manifests_older_than_seals_load(root: str) -> None:
    version = registered(root, "run-a")
    old = version.model_dump_json(indent=1, exclude={"seal", "code", "ray_job_id"}).encode()
    storage.put(storage.join(version_uri(root, version), "manifest.json"), old)
    found = find(root, "ada2i")
    assert found == version.model_copy(update={"seal": None, "code": None})
    assert read_file(root, found, "report.html") == b"report.html of run-a"


def test_read_file_names_what_there_is(root: str) -> None:
    version = registered(root, "run-a")
    with pytest.raises(NotFoundError, match=r"ada2i@1 must hold x, but holds weights\.safetensors, config\.json"):
        read_file(root, version, "x")


def test_damaged_weights_are_not_registered(root: str) -> None:
    result = finished_run(root, "run-a")
    best = max(result.seeds, key=lambda seed: seed.dev.weighted_f1)
    storage.put(storage.join(best.checkpoint_uri, "weights.safetensors"), b"other")
    with pytest.raises(IntegrityError, match=r"weights\.safetensors must hold the"):
        register(result.run_uri, root=root, model="ada2i")
    assert versions(root, "ada2i") == []


def test_a_run_that_was_not_evaluated(root: str) -> None:
    with pytest.raises(NotFoundError, match=r"result\.json does not exist"):
        register(storage.join(root, "runs", "none"), root=root, model="ada2i")
    assert models(root) == []


@pytest.mark.parametrize("name", ["", "Ada2I", "a/b", "..", "../x", ".hidden", "a b", "a@1", "-x", "a" * 64, "a\n"])
def test_bad_model_names(root: str, name: str) -> None:
    with pytest.raises(ConfigError, match="must be lower-case letters, digits"):
        register(storage.join(root, "runs", "none"), root=root, model=name)
    assert not storage.exists(storage.join(root, "registry"))


def test_list_and_find(root: str) -> None:
    assert versions(root, "ada2i") == []
    assert models(root) == []
    made = [registered(root, f"run-{n:02}") for n in range(11)]
    other = registered(root, "run-00", model="other-model")
    assert versions(root, "ada2i") == made  # 10 and 11 after 9
    assert models(root) == ["ada2i", "other-model"]
    assert find(root, "ada2i") == made[-1]
    assert find(root, "ada2i", 3) == made[2]
    assert find(root, "other-model") == other
    for model, number, wanted in (("ada2i", 12, "ada2i@12"), ("none", None, "none")):
        with pytest.raises(NotFoundError, match=f"must hold a version {wanted}, but does not"):
            find(root, model, number)


def test_a_damaged_manifest_is_refused(root: str) -> None:
    version = registered(root, "run-a")
    storage.put(storage.join(version_uri(root, version), "manifest.json"), b'{"schema_version": 2}')
    with pytest.raises(Ada2iError, match="must hold a Version of schema version 1"):
        versions(root, "ada2i")
