"""Separate processes that register and promote at once: one winner each time, and the whole story on record."""

from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, Any

from ada2i.errors import ConflictError
from ada2i.registry.aliases import history, move, rollback
from ada2i.registry.verify import verify
from ada2i.registry.versions import register, versions
from tests.faults.processes import FORKSERVER, spawn
from tests.unit.registry.finished import finished_run, registered

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

PROCESSES = 32


def at_once(task: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call a function in as many processes as there are arguments, all at one moment; return what it returned."""
    start, answers = FORKSERVER.Barrier(len(arguments)), FORKSERVER.SimpleQueue()
    processes = [spawn(_wait_and_call, start, answers, index, task, given) for index, given in enumerate(arguments)]
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [found[index] for index in range(len(processes))]


def _wait_and_call(
    start: Barrier, answers: "SimpleQueue[Any]", index: int, task: Callable[..., Any], given: Any
) -> None:
    start.wait(timeout=120)
    try:
        answers.put((index, task(*given)))
    except Exception as problem:  # noqa: BLE001 - for the test to look at
        answers.put((index, problem))


def number_of(run_uri: str, root: str) -> int:
    return register(run_uri, root=root, model="ada2i").number


def promote(root: str, number: int, expected: int | None) -> int:
    made = move(root, "ada2i", "champion", number, expected=expected, by=f"process {number}", reason="race")
    assert made.by == f"process {number}"
    return made.n


def back(root: str, expected: int) -> int:
    return rollback(root, "ada2i", "champion", by="ben", reason="race", expected=expected).number


def test_registrations_at_once_get_numbers_of_their_own(place: str) -> None:
    runs = [finished_run(place, f"run-{n}").run_uri for n in range(PROCESSES)]
    numbers = at_once(number_of, [(uri, place) for uri in runs])
    assert sorted(numbers) == list(range(1, PROCESSES + 1))
    assert [v.run_uri for v in versions(place, "ada2i")] == [runs[numbers.index(n)] for n in sorted(numbers)]
    assert verify(place, "ada2i") == []


def test_registrations_of_one_run_at_once_make_one_version(place: str) -> None:
    uri = finished_run(place, "run-a").run_uri
    numbers = at_once(number_of, [(uri, place)] * 8)
    assert len(set(numbers)) == 1
    assert [v.number for v in versions(place, "ada2i")] == numbers[:1]
    assert verify(place, "ada2i") == []


def test_promotions_at_once_have_one_winner(place: str) -> None:
    made = [registered(place, f"run-{n}").number for n in range(PROCESSES)]
    champion: int | None = None
    for n in (1, 2):
        contenders = [number for number in made if number != champion]
        answers = at_once(promote, [(place, number, champion) for number in contenders])
        winners = [number for number, answer in zip(contenders, answers, strict=True) if answer == n]
        losers = [answer for answer in answers if isinstance(answer, ConflictError)]
        assert len(winners) == 1
        assert len(losers) == len(contenders) - 1
        assert all(f"but is at version {winners[0]}, by process {winners[0]}" in loser.message for loser in losers)
        (champion,) = winners
    first, second = history(place, "ada2i", "champion")
    assert (first.number, first.before) == (second.before, None)
    assert second.number == champion
    answers = at_once(back, [(place, champion)] * 8)
    assert answers.count(first.number) == 1
    assert sum(isinstance(answer, ConflictError) for answer in answers) == 7
    assert [m.kind for m in history(place, "ada2i", "champion")] == ["promote", "promote", "rollback"]
    assert verify(place, "ada2i") == []
