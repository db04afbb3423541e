"""A stand-in for a CUDA graph on a CPU: it repeats a run's operators on the same memory, without its Python code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ada2i.training.graphs import Outputs, Run


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], Mapping[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator and keep the call, with the memory that its results are in."""
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            outputs = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
            self.calls.append((func, args, kwargs or {}, outputs))
        return found


def record(run: Run) -> tuple[Outputs, Callable[[], None]]:
    """Capture a run; see ``Capture``."""
    with _Recorder() as recorder:
        outputs = run()

    @torch.no_grad()
    def replay() -> None:
        for func, args, kwargs, stored in recorder.calls:
            found = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for place, tensor in zip(stored, found, strict=True):
                if place is not tensor:  # an operator in place has changed the memory already
                    place.copy_(tensor)

    return outputs, replay
