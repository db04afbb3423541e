"""How many operators a step launches: a GPU waits for them, as each takes the host longer to launch than to compute."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ada2i import fast
from ada2i.balance import make_balancer
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.benchmarks.workload import WORKLOADS


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that are no views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator and count it."""
        if not func.is_view:
            self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True, params=[True, False], ids=["fast", "plain"])
def _fast(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switch CPU optimisations on, as by default, or off, as on a GPU (there torch's attention is one operator)."""
    fast.enable(request.param)
    yield
    fast.enable(True)


def operators(preset: str, settings: str, dialogues: int, **overrides: Any) -> int:
    """Return the operators of a step with one batch of the settings' dialogue lengths.

    Widths change no operator, so they are small here.
    """
    work = replace(WORKLOADS[settings], widths=dict.fromkeys(WORKLOADS[settings].widths, 20))
    fields = {"model__hidden_dim": 8, "model__encoder__feedforward_dim": 16, **overrides}
    config = resolve(
        preset=preset, settings=settings, overrides={n.replace("__", "."): value for n, value in fields.items()}
    )
    torch.manual_seed(0)
    model = build_model(config, widths=work.widths, classes=work.classes)
    optimizer = make_optimizer(model, learning_rate=1e-4, weight_decay=0.0)
    balancer = make_balancer(config)
    balancer.set_epoch(1)
    for step in range(2):  # the first one creates the optimizer's state
        with Operators() as seen:
            train_step(
                model,
                [work.batch(dialogues, seed=step)],
                optimizer,
                key=StepKey(1, step),
                clip_norm=1.0,
                balancer=balancer,
                weights=config.loss,
            )
    return sum(seen.counts.values())


@pytest.mark.parametrize("settings", ["iemocap", "meld"])
@pytest.mark.parametrize(
    ("preset", "overrides", "fast_most", "plain_most"),
    [
        ("reference", {}, 490, 670),
        ("reference", {"model__encoder__attend_to_padding": False, "model__afw__average_padding": False}, 500, 700),
        ("corrected", {}, 315, 330),
    ],
)
def test_a_step_launches_few_operators(
    preset: str, overrides: Mapping[str, Any], fast_most: int, plain_most: int, settings: str
) -> None:
    assert operators(preset, settings, 10, **overrides) <= (fast_most if fast.enabled() else plain_most)


@pytest.mark.parametrize("settings", ["iemocap", "meld"])
@pytest.mark.parametrize("preset", ["reference", "corrected"])
def test_more_dialogues_launch_no_more_operators(preset: str, settings: str) -> None:
    assert operators(preset, settings, 64) == operators(preset, settings, 10)


def test_noise_adds_few_operators_for_each_tensor() -> None:
    plain = operators("reference", "meld", 10)
    noisy = operators("reference", "meld", 10, balance__start_epoch=1)
    tensors = 3 * (2 * 12 + 2)  # of the encoders
    assert plain < noisy <= plain + 20 + 5 * tensors
