"""One item ahead: a thread makes the next one while the caller works on this one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """Yield what is made of each item, in order; the next one is made meanwhile.

    An item is taken only when the one before it was made. What ``items`` or ``make`` raise is raised in the item's
    turn; when the caller stops, the thread ends with what it is making.
    """
    left = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        making = [thread.submit(make, item) for item in islice(left, 1)]
        while making:
            made = making.pop().result()
            making = [thread.submit(make, item) for item in islice(left, 1)]
            yield made
