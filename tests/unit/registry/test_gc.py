"""Garbage collection: remains are deleted, referenced versions stay, and no number is used twice."""

import os
import time
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, NotFoundError
from ada2i.registry import retention
from ada2i.registry.aliases import move, rollback
from ada2i.registry.gc import DAY, sweep
from ada2i.registry.verify import verify
from ada2i.registry.versions import SWEPT, find, register, versions
from ada2i.store import Store
from tests.unit.registry.finished import Crash, registered, unfinished

WHO = {"by": "anna", "reason": "better"}


def folder(root: str, number: int) -> str:
    return storage.join(root, "registry", "ada2i", "versions", str(number))


def make_older(root: str, number: int, seconds: float) -> None:
    """Let a version's objects look as if they had been written some time ago."""
    path = storage.local_path(folder(root, number))
    assert path is not None
    then = time.time() - seconds
    for file in path.iterdir():
        os.utime(file, (then, then))


def test_an_unfinished_registration_is_left_in_peace_for_a_day(root: str) -> None:
    unfinished(root, "run-a")
    before = storage.children(folder(root, 1))
    assert sweep(root, "ada2i") == []
    make_older(root, 1, DAY - 60)
    assert sweep(root, "ada2i") == []
    assert storage.children(folder(root, 1)) == before
    make_older(root, 1, DAY)
    assert sweep(root, "ada2i") == [storage.join(folder(root, 1), name) for name in before]
    assert storage.children(folder(root, 1)) == ["manifest.json"]
    assert sweep(root, "ada2i") == []
    assert verify(root, "ada2i") == []


def test_a_swept_run_registers_under_another_number(root: str) -> None:
    uri = unfinished(root, "run-a")
    sweep(root, "ada2i", older_than_s=0)
    assert register(uri, root=root, model="ada2i").number == 2
    assert sweep(root, "ada2i", older_than_s=0) == []
    assert [v.number for v in versions(root, "ada2i")] == [2]
    assert verify(root, "ada2i") == []


def test_a_writer_that_is_swept_meanwhile_takes_another_number(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.put_if_absent

    def sweep_then_write(uri: str, data: bytes) -> bool:
        if uri.endswith("report.html"):
            monkeypatch.setattr(storage, "put_if_absent", real)
            sweep(root, "ada2i", older_than_s=0)
        return real(uri, data)

    monkeypatch.setattr(storage, "put_if_absent", sweep_then_write)
    assert registered(root, "run-a").number == 2
    assert storage.children(folder(root, 1)) == ["README.md", "manifest.json", "report.html"]  # written too late
    assert len(sweep(root, "ada2i", older_than_s=DAY)) == 2
    assert verify(root, "ada2i") == []


def test_a_claim_without_a_pointer_goes(root: str) -> None:
    unfinished(root, "run-a", at="/runs/run-a.json")
    assert sweep(root, "ada2i", older_than_s=0) == [storage.join(folder(root, 1), "claim.json")]
    assert registered(root, "run-b").number == 2


def test_remains_of_killed_writes_go(root: str) -> None:
    registered(root, "run-a")
    path = storage.local_path(storage.join(folder(root, 1), ".partial-0123"))
    assert path is not None
    path.write_bytes(b"half")
    assert sweep(root, "ada2i") == []
    assert sweep(root, "ada2i", older_than_s=0) == [path.as_uri()]
    assert not path.exists()


def test_versions_stay_by_default(root: str) -> None:
    made = [registered(root, f"run-{n}") for n in range(3)]
    assert sweep(root, "ada2i", older_than_s=0) == []
    assert sweep(root, "ada2i", older_than_s=0, versions_older_than_s=DAY) == []
    assert versions(root, "ada2i") == made


def test_only_unreferenced_versions_are_deleted(root: str) -> None:
    uris = [registered(root, f"run-{n}").run_uri for n in range(5)]
    move(root, "ada2i", "champion", 1, expected=None, **WHO)
    move(root, "ada2i", "champion", 3, expected=1, **WHO)
    rollback(root, "ada2i", "champion", by="ben", reason="worse")
    deleted = sweep(root, "ada2i", versions_older_than_s=0)
    assert {uri.rpartition("/")[0] for uri in deleted} == {folder(root, 2), folder(root, 4)}  # 5 is the newest
    assert [v.number for v in versions(root, "ada2i")] == [1, 3, 5]
    assert storage.children(folder(root, 2)) == ["fate.json", "manifest.json"]
    assert storage.get(storage.join(folder(root, 2), "manifest.json")) == SWEPT
    assert verify(root, "ada2i") == []
    assert sweep(root, "ada2i", versions_older_than_s=0) == []
    with pytest.raises(NotFoundError, match="must hold a version ada2i@2, but does not"):
        move(root, "ada2i", "champion", 2, expected=1, **WHO)
    assert register(uris[1], root=root, model="ada2i").number == 6  # registered again, it is a new version


def test_the_record_of_predictions_goes_with_its_version(root: str) -> None:
    kept = {}
    for number in (1, 2):
        registered(root, f"run-{number}")
        kept[number] = storage.join(Store.open(root).drift("ada2i", number), "reference.parquet")
        storage.put(kept[number], b"sums")
    sweep(root, "ada2i", versions_older_than_s=0)
    assert [storage.exists(kept[number]) for number in (1, 2)] == [False, True]


def test_a_version_that_is_promoted_meanwhile_stays(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        registered(root, f"run-{n}")
    real = retention.retire

    def promote_then_retire(uri: str) -> bool:
        monkeypatch.setattr(retention, "retire", real)
        move(root, "ada2i", "champion", 1, expected=None, **WHO)
        return real(uri)

    monkeypatch.setattr(retention, "retire", promote_then_retire)
    sweep(root, "ada2i", versions_older_than_s=0)
    assert [v.number for v in versions(root, "ada2i")] == [1, 3]
    assert verify(root, "ada2i") == []


def test_a_killed_promotion_keeps_its_version(root: str) -> None:
    for n in range(2):
        registered(root, f"run-{n}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "put_if_absent", Crash("/aliases/"))
        with pytest.raises(KeyboardInterrupt, match="killed"):
            move(root, "ada2i", "champion", 1, expected=None, **WHO)
    assert sweep(root, "ada2i", versions_older_than_s=0) == []
    assert move(root, "ada2i", "champion", 1, expected=None, **WHO).number == 1


def test_a_killed_deletion_is_finished_by_the_next_sweep(root: str) -> None:
    for n in range(2):
        registered(root, f"run-{n}")
    assert retention.retire(folder(root, 1))
    assert find(root, "ada2i", 1).number == 1  # not deleted yet
    assert len(sweep(root, "ada2i")) == 8
    assert storage.children(folder(root, 1)) == ["fate.json", "manifest.json"]


def test_bad_model_names(root: str) -> None:
    with pytest.raises(ConfigError, match="A model's name must be lower-case letters"):
        sweep(root, "../..", older_than_s=0)


def test_a_damaged_manifest_is_left_for_a_person(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    place = storage.join(folder(root, 1), "manifest.json")
    storage.put(place, b"{")
    assert sweep(root, "ada2i", older_than_s=0) == []
    assert storage.get(place) == b"{"


def test_what_a_killed_import_leaves_is_deleted(root: str) -> None:
    registered(root, "run-a")
    folder = storage.local_path(f"{root}/features/talks/ab")
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / ".partial-1").touch()
    (folder / "part-00000.parquet").touch()
    assert sweep(root, "ada2i") == []
    assert sweep(root, "ada2i", older_than_s=0) == [f"{root}/features/talks/ab/.partial-1"]
    assert [path.name for path in folder.iterdir()] == ["part-00000.parquet"]
