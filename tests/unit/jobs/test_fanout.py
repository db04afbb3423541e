"""Tasks on the workers of a pool that is made up: order, what is appended, a worker that dies, a request to leave."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from ada2i.errors import JobError, PreemptedError
from ada2i.jobs import preemption
from ada2i.jobs.fanout import Call, Host, run_tasks


class Remote:
    """As Ray's ``handle.method``: keeps a call to be run later."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def remote(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return lambda: self._host.call(method, arguments)


class Handle:
    def __init__(self, worker: type) -> None:
        self.call = Remote(Host(worker, ()))


class Pool:
    """As Ray's ``ActorPool``; results come last first."""

    def __init__(self, handles: list[Any]) -> None:
        self.idle, self.pending = handles, list[tuple[Any, Any]]()

    def has_next(self) -> bool:
        return bool(self.pending)

    def has_free(self) -> bool:
        return bool(self.idle)

    def pop_idle(self) -> Any:
        return self.idle.pop()

    def submit(self, call: Any, value: Any) -> None:
        handle = self.idle.pop()
        self.pending.append((handle, call(handle, value)))

    def get_next_unordered(self, timeout: float) -> Any:
        assert timeout > 0
        handle, task = self.pending.pop()
        result = task()
        self.idle.append(handle)
        return result


class Doubler:
    """A worker."""

    def double(self, number: int) -> int:
        return 2 * number

    def die(self) -> None:
        raise ActorDiedError

    def leave(self) -> None:
        preemption.request()
        raise PreemptedError("leaving")


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "_requested", threading.Event())
    monkeypatch.setattr(preemption, "listen_as_worker", lambda: None)


def pool(workers: int = 2) -> Any:
    return Pool([Handle(Doubler) for _ in range(workers)])


def calls(*numbers: int) -> Iterator[Call]:
    return (("double", (number,)) for number in numbers)


def test_every_task_is_run_once() -> None:
    workers = pool()
    assert sorted(run_tasks(workers, calls(*range(9)))) == list(range(0, 18, 2))
    assert len(workers.idle) == 2  # for other tasks
    assert list(run_tasks(workers, calls())) == []


def test_tasks_may_be_appended_while_results_are_read() -> None:
    waiting, found, workers = deque(calls(1)), [], pool()
    for result in run_tasks(workers, waiting, last=True):
        found.append(result)
        if result < 8:
            waiting.append(("double", (result,)))
    assert found == [2, 4, 8]


def test_workers_without_a_last_task_end() -> None:
    workers = pool(3)
    results = run_tasks(workers, calls(1, 2), last=True)
    next(results)
    assert len(workers.idle) == 1
    assert len(list(results)) == 1


def test_a_worker_that_dies_too_often_is_an_error() -> None:
    with pytest.raises(JobError, match=r"A worker must finish its task, but died 4 times: .*lower `workers`"):
        list(run_tasks(pool(), [("die", ())]))


def test_a_job_that_is_to_leave_finishes_what_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "requested_by_driver", lambda: True)
    results = run_tasks(pool(), calls(*range(5)))
    next(results)
    preemption.request()
    next(results)
    with pytest.raises(PreemptedError, match="requested to leave, and left after 2 tasks"):
        next(results)


def test_all_tasks_of_a_job_leave_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "requested_by_driver", lambda: True)
    workers = pool()
    with pytest.raises(PreemptedError, match="requested to leave, and left after 0 tasks"):
        list(run_tasks(workers, [("leave", ()), ("leave", ())], last=True))
    assert not workers.has_next()


def test_a_worker_that_is_to_leave_alone_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(preemption, "requested_by_driver", lambda: False)
    with pytest.raises(PreemptedError):  # in place of the end of the process
        Host(Doubler, ()).call("leave", ())
    assert ended == [1]


def test_a_worker_whose_job_is_to_leave_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "requested_by_driver", lambda: True)
    with pytest.raises(PreemptedError, match="leaving"):
        Host(Doubler, ()).call("leave", ())
