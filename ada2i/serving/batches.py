"""Batches of requests: all that wait are computed together as soon as the computation before them ends.

Ray Serve's own batching forms the next batch while the one before is computed, so under load it computes small ones.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batches(Generic[Item, Result]):
    """Computes batches in one thread, one after the other; a request that was given up is not computed."""

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, most: int) -> None:
        """Store the function, which maps items to as many results, and the most items that it takes."""
        self._compute, self._most = compute, most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._running: asyncio.Task[None] | None = None

    async def result(self, item: Item) -> Result:
        """Return the result for an item; raises what the function raises for its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while batch := self._next():
            items = [item for item, _ in batch]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, items)
            except Exception as problem:  # noqa: BLE001 - each request raises it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(problem)
                continue
            for (_, future), found in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(found)
        self._running = None

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch
