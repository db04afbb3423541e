"""The choice of a transformer's layers, which is a setting of all encoders that are transformers.

Layers are counted as transformers counts hidden states: 0 is the input of the first layer, n the n-th's output.
``5-8`` is the mean of layers 5 to 8. The states of several choices, ``[4, "5-8"]`` or ``4,5-8``, are concatenated.
"""

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from ada2i.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Layers: TypeAlias = int | str | list[int | str]
Groups: TypeAlias = tuple[tuple[int, ...], ...]  # the states of a group are averaged

_RANGE = re.compile(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", re.ASCII)


def groups(layers: Layers, last: int) -> Groups:
    """Return the chosen layers.

    Args:
        layers: The choice.
        last: The model's last layer.

    Raises:
        ConfigError: It is no such choice, or the model lacks a layer.
    """
    given = layers if isinstance(layers, list) else str(layers).split(",")
    found = tuple(_group(str(one)) for one in given)
    if not all(found) or not found or len(set(found)) < len(found) or max(map(max, found)) > last:
        raise ConfigError(
            f"`layers` must be different numbers from 0 to {last}, the layers of this model, or ranges such as "
            f'"1-{last}", of which the mean is taken, but is {layers}. Choose others.',
            field="layers",
        )
    return found


def _group(text: str) -> tuple[int, ...]:
    match = _RANGE.fullmatch(text)
    return tuple(range(int(match[1]), int(match[2] or match[1]) + 1)) if match else ()


def name(chosen: Groups) -> str:
    """Return a choice as text that ``groups`` reads."""
    return ",".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in chosen)


def outputs(chosen: Groups, output: Any, last: int) -> "list[Tensor]":
    """Return the mean of each group's states in a network's output; the last layer includes the final norm."""
    return means(chosen, lambda layer: output.last_hidden_state if layer == last else output.hidden_states[layer])


def means(chosen: Groups, states: "Callable[[int], Tensor]") -> "list[Tensor]":
    """Return the mean of each group's states."""
    return [sum(map(states, one[1:]), states(one[0])) / len(one) for one in chosen]
