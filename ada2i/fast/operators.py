"""Several torch calls as one operator: what counts, records or traces operators sees one, as with torch's kernels."""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("ada2i", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(schema: str, function: Callable[..., Any]) -> None:
    """Make ``torch.ops.ada2i.<name>`` call a function on CPU tensors.

    Args:
        schema: As in PyTorch's ``native_functions.yaml``: name, arguments and results.
        function: Computes the results, without a gradient.
    """
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(schema.partition("(")[0], function, "CPU")  # type: ignore[no-untyped-call]
