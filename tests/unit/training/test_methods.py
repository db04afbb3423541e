"""Every balance method in whole runs: its null setting changes nothing, and a resumed run is the uninterrupted one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ada2i import checkpoint
from ada2i.config import BALANCE_METHODS
from ada2i.training import fit as fitting
from ada2i.training.fit import fit
from ada2i.training.step import StepReport, train_step
from tests.unit.balance.runs import ACTIVE, NULL, overrides
from tests.unit.training.small import TINY, Listener, tiny_task

KEPT = {name: value for name, value in TINY.items() if not name.startswith("balance.")}
PRESETS = ("corrected", "reference")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(autouse=True)
def _without_ada2is_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.training.small.TINY", {**KEPT, "training.epochs": 2})


def run(base: Path, name: str, preset: str, balance: dict[str, Any], **more: Any) -> dict[str, Tensor]:
    """Train, and return the last weights."""
    fields = {key.replace(".", "__"): value for key, value in balance.items()}
    task = tiny_task(base, f"{name}-{preset}", preset=preset, **fields, **more)
    fit(task, Listener())
    return checkpoint.load_weights(checkpoint.checkpoint_uri(task.folder.checkpoints, 6))


@pytest.fixture(scope="module")
def free() -> dict[str, dict[str, Tensor]]:
    """The weights without balancing, by preset; filled by the first test that needs them."""
    return {}


def without_balancing(base: Path, preset: str, free: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    if preset not in free:
        free[preset] = run(base, "none", preset, {"balance.method": "none"})
    return free[preset]


def same(ours: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(ours[name], other[name]) for name in ours)


def test_every_method_has_settings_to_test() -> None:
    assert set(ACTIVE) == set(NULL) == set(BALANCE_METHODS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", sorted(set(NULL) - {"none"}))
def test_a_null_setting_is_no_balancing_to_the_last_bit(
    base: Path, free: dict[str, dict[str, Tensor]], method: str, preset: str
) -> None:
    plain = without_balancing(base, preset, free)
    assert same(run(base, f"null-{method}", preset, overrides(method, NULL[method])), plain)


@pytest.mark.parametrize("method", ["ada2i", "agm", "opm", "pmr", "spcl"])
def test_a_single_modality_needs_no_balancing(base: Path, method: str) -> None:
    text = {"model__modalities": ("text",)}
    plain = run(base, "one-none", "corrected", {"balance.method": "none"}, **text)
    assert same(run(base, f"one-{method}", "corrected", overrides(method, ACTIVE[method]), **text), plain)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", sorted(set(ACTIVE) - {"none"}))
def test_a_method_acts_and_resumes_to_the_last_bit(
    base: Path, free: dict[str, dict[str, Tensor]], method: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    balance = overrides(method, ACTIVE[method])
    whole = run(base, f"whole-{method}", preset, balance)
    assert all(tensor.isfinite().all() for tensor in whole.values())
    assert not same(whole, without_balancing(base, preset, free))

    def dying(*given: Any, **more: Any) -> StepReport:
        if more["key"].step == 4:  # in the middle of the second epoch; the newest checkpoint is of the step before
            raise KeyboardInterrupt
        return train_step(*given, **more)

    monkeypatch.setattr(fitting, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(base, f"killed-{method}", preset, balance)
    monkeypatch.setattr(fitting, "train_step", train_step)
    torch.manual_seed(987)  # a new process starts with other random state
    assert same(run(base, f"killed-{method}", preset, balance), whole)


@pytest.mark.parametrize("method", sorted(set(ACTIVE) - {"none"}))
def test_parts_of_a_share_change_only_rounding(base: Path, method: str) -> None:
    quiet = {"model__encoder__dropout": 0.0, "model__afw__dropout": 0.0, "model__encoder__input_dropout": 0.0}
    quiet |= {"training__learning_rate": 1.7e-4}
    balance = overrides(method, ACTIVE[method])
    one, two = (
        run(base, f"parts-{parts}-{method}", "corrected", balance, resources__accumulate=parts, **quiet)
        for parts in (1, 2)
    )
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
