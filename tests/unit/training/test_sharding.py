"""One item ahead, in order; errors come in their turn."""

import threading
from collections.abc import Iterator

import pytest

from ada2i.training.sharding import ahead


def test_items_come_in_order_made_by_another_thread() -> None:
    found = list(ahead(range(5), lambda item: (item * item, threading.current_thread())))
    assert [made for made, _ in found] == [0, 1, 4, 9, 16]
    assert {thread for _, thread in found}.isdisjoint({threading.current_thread()})
    assert list(ahead([], str)) == []


def test_the_next_one_is_made_while_the_caller_works() -> None:
    made = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            made.set()
        return item

    items = ahead(range(3), make)
    assert next(items) == 0
    assert made.wait(30)
    assert list(items) == [1, 2]


def test_an_item_is_taken_when_the_one_before_it_was_made() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        for item in range(4):
            assert done == list(range(item))
            yield item

    assert list(ahead(items(), done.append)) == [None] * 4
    assert done == [0, 1, 2, 3]


def test_errors_come_in_their_turn() -> None:
    def make(item: int) -> float:
        return 1 / (2 - item)

    found = ahead(range(4), make)
    assert [next(found), next(found)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        next(found)


def test_a_caller_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    found = ahead(range(100), str)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
