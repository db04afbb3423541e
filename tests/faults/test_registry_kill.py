"""Registry operations killed at every single write: complete or invisible, nothing lost, and the next call repairs it.

A child process counts the system calls (on a folder) or requests (on S3) that change something, and kills itself, with
SIGKILL, before or after the k-th one, for every k until it gets through.
"""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ada2i import storage
from ada2i.registry.aliases import Move, current, history, move, rollback
from ada2i.registry.gc import sweep
from ada2i.registry.pull import pull
from ada2i.registry.verify import verify
from ada2i.registry.versions import SWEPT, find, load_version, register, versions
from tests.faults.processes import spawn
from tests.unit.registry.finished import finished_run, registered

CALLS = ("mkdir", "fsync", "link", "replace", "rename", "unlink")
REQUESTS = ("PutObject", "DeleteObject")
Operation = Callable[[str, int], Any]


class Death:
    """Kills this process before or after the k-th write, counted from 0."""

    def __init__(self, k: int, *, after: bool) -> None:
        self.left = k
        self.after = after

    def wrap(self, real: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make one write, or die."""
        self.left -= 1
        if self.left < 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*arguments, **named)
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def perform(operation: Operation, root: str, attempt: int, death: Death) -> None:
    """Run an operation in a process of its own, which may die."""
    if root.startswith("s3://"):
        from botocore.client import BaseClient

        real = BaseClient._make_api_call  # type: ignore[attr-defined]

        def request(self: Any, name: str, values: Any) -> Any:
            if name in REQUESTS:
                return death.wrap(real, self, name, values)
            return real(self, name, values)

        BaseClient._make_api_call = request  # type: ignore[attr-defined]
    else:
        for name in CALLS:
            setattr(os, name, partial(death.wrap, getattr(os, name)))
    operation(root, attempt)


def deaths(operation: Operation, root: str, prepare: Callable[[str, int], None]) -> Iterator[int]:
    """Yield after each attempt at the operation, with its number, until it gets through: after each of its deaths."""
    attempt = 0
    for after in (False, True):
        for k in range(1000):
            attempt += 1
            prepare(root, attempt)
            process = spawn(perform, operation, root, attempt, Death(k, after=after))
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            yield attempt
            if process.exitcode == 0:
                break
    assert attempt >= 4  # it did die, both ways


def run_id(attempt: int) -> str:
    return f"run-{attempt:03}"


def run_of(root: str, attempt: int) -> str:
    return storage.join(root, "runs", run_id(attempt))


def finish(root: str, attempt: int) -> None:
    finished_run(root, run_id(attempt), seeds=(12,))


def register_it(root: str, attempt: int) -> None:
    register(run_of(root, attempt), root=root, model="ada2i")


def promote_it(root: str, attempt: int) -> None:
    expected = current(root, "ada2i", "champion")
    number = 2 if expected and expected.number == 1 else 1
    before = expected.number if expected else None
    move(root, "ada2i", "champion", number, expected=before, by=str(attempt), reason="test")


def roll_back(root: str, attempt: int) -> None:
    rollback(root, "ada2i", "champion", by=str(attempt), reason="test")


def sweep_it(root: str, attempt: int) -> None:
    sweep(root, f"ada2i-{attempt}", older_than_s=0, versions_older_than_s=0)


def pull_it(root: str, attempt: int) -> None:
    pull(root, "ada2i", copy_of(root, attempt))


def copy_of(root: str, attempt: int) -> Path:
    path = storage.local_path(root)
    assert path is not None
    return path.with_name("copies") / str(attempt)


def test_a_killed_registration(place: str) -> None:
    made = [registered(place, "run-000").run_id]
    for attempt in deaths(register_it, place, finish):
        name = run_id(attempt)
        visible = [v for v in versions(place, "ada2i") if v.run_id == name]
        assert all(verify(place, "ada2i", v.number) == [] for v in visible)  # if it is visible, it is complete
        if attempt % 2:  # every other one is swept before its run comes back
            sweep(place, "ada2i", older_than_s=0)
            assert remains(place) == []
            assert [v for v in versions(place, "ada2i") if v.run_id == name] == visible
        again = register(run_of(place, attempt), root=place, model="ada2i")
        assert visible in ([], [again])
        assert register(run_of(place, attempt), root=place, model="ada2i") == again
        made.append(name)
    sweep(place, "ada2i", older_than_s=0)
    assert verify(place, "ada2i") == []
    assert remains(place) == []
    assert sorted(v.run_id for v in versions(place, "ada2i")) == made


def remains(root: str) -> list[str]:
    """Return the objects of the model that belong to no version, but for the marks of numbers that were swept."""
    home = storage.join(root, "registry", "ada2i")
    found = [] if (path := storage.local_path(home)) is None else [str(p) for p in path.rglob(".partial-*")]
    for number in storage.children(storage.join(home, "versions")):
        uri = storage.join(home, "versions", number)
        if load_version(uri) is None:
            left = {name: storage.get(storage.join(uri, name)) for name in storage.children(uri)}
            found += [] if left == {"manifest.json": SWEPT} else [uri]
    return found


def test_a_killed_promotion(place: str) -> None:
    for name in ("run-a", "run-b"):
        registered(place, name)
    moves: list[Move] = []
    for attempt in deaths(promote_it, place, lambda *_: None):
        found = history(place, "ada2i", "champion")
        assert found[: len(moves)] == moves
        assert [m.by for m in found[len(moves) :]] in ([], [str(attempt)])
        assert verify(place, "ada2i") == []
        moves = found
    sweep(place, "ada2i", older_than_s=0, versions_older_than_s=0)
    assert [v.number for v in versions(place, "ada2i")] == [1, 2]
    assert [m.number for m in moves] == [1 + n % 2 for n in range(len(moves))]


def test_a_killed_rollback(place: str) -> None:
    for name in ("run-a", "run-b"):
        registered(place, name)
    promote_it(place, 0)

    def promoted(root: str, _: int) -> None:
        move(root, "ada2i", "champion", 2, expected=1, by="test", reason="again") if at_one(root) else None

    def at_one(root: str) -> bool:
        last = current(root, "ada2i", "champion")
        return last is not None and last.number == 1

    for attempt in deaths(roll_back, place, promoted):
        last = history(place, "ada2i", "champion")[-1]
        assert (last.kind, last.number, last.by) in (
            ("promote", 2, "test"),
            ("rollback", 1, str(attempt)),
        )
        assert verify(place, "ada2i") == []


def test_a_killed_sweep(place: str) -> None:
    runs = [finished_run(place, name, seeds=(12,)).run_uri for name in ("run-a", "run-b")]

    def two_versions(root: str, attempt: int) -> None:
        for uri in runs:
            register(uri, root=root, model=f"ada2i-{attempt}")

    for attempt in deaths(sweep_it, place, two_versions):
        model = f"ada2i-{attempt}"
        assert verify(place, model) == []  # the first version is whole or invisible
        assert find(place, model, 2).number == 2
        sweep(place, model, older_than_s=0, versions_older_than_s=0)
        assert [v.number for v in versions(place, model)] == [2]
        left = storage.children(storage.join(place, "registry", model, "versions", "1"))
        assert left == ["fate.json", "manifest.json"]
        assert verify(place, model) == []


def test_a_killed_pull(tmp_path: Path) -> None:
    root = (tmp_path / "store").as_uri()
    version = registered(root, "run-a")
    for attempt in deaths(pull_it, root, lambda *_: None):
        copy = copy_of(root, attempt)
        assert not copy.exists() or {path.name for path in copy.iterdir()} == {*version.files, "manifest.json"}
        assert pull(root, "ada2i", copy) == copy
