"""Batches of requests, around a function that does what a test needs."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ada2i.serving.batches import Batches

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Doubles:
    """Doubles numbers once it may; remembers its batches."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        assert self.may.wait(30)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


async def started(batches: Batches[int, int], *numbers: int) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(batches.result(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_is_computed_together_in_order() -> None:
    doubles = Doubles()
    batches = Batches(doubles, most=3)
    first = await started(batches, 1)
    await asyncio.sleep(0)  # the first batch begins
    later = await started(batches, 2, 3, 4, 5)
    doubles.may.set()
    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10]
    assert doubles.batches == [[1], [2, 3, 4], [5]]
    assert await batches.result(6) == 12


async def test_a_request_that_was_given_up_is_not_computed() -> None:
    doubles = Doubles()
    batches = Batches(doubles, most=3)
    await started(batches, 1)
    await asyncio.sleep(0)
    given_up, kept = await started(batches, 2, 3)
    given_up.cancel()
    await asyncio.sleep(0)
    doubles.may.set()
    assert await kept == 6
    assert doubles.batches == [[1], [3]]


async def test_an_error_belongs_to_its_batch_alone() -> None:
    doubles = Doubles()
    doubles.may.set()
    batches = Batches(doubles, most=3)
    with pytest.raises(ValueError, match="13"):
        await batches.result(13)
    assert await batches.result(1) == 2
