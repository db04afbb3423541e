"""Methods by name: what each makes of the ratio, and when."""

from typing import Any

import pytest
import torch

from ada2i.balance import make_balancer
from ada2i.balance.ada2i import Ada2IBalancer
from ada2i.balance.base import StepScales
from ada2i.balance.none import NoBalancer
from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.presets import resolve

STATISTICS = {"scores": torch.tensor([2.0, 1.0]), "counts": torch.tensor([4.0, 4.0])}


def scales(epoch: int = 4, **balance: Any) -> StepScales:
    config = resolve(preset="reference", settings="meld", overrides={f"balance.{k}": v for k, v in balance.items()})
    balancer = make_balancer(config)
    balancer.set_epoch(epoch)
    return balancer.scales(STATISTICS)


def test_the_config_names_the_method() -> None:
    def method(**overrides: Any) -> type:
        fields = {name.replace("__", "."): value for name, value in overrides.items()}
        return type(make_balancer(resolve(preset="corrected", settings="meld", overrides=fields)))

    assert method() is UnimodalBalancer
    assert method(balance__method="ada2i") is Ada2IBalancer
    assert method(balance__method="none") is NoBalancer
    assert method(ablations__no_modulation=True) is NoBalancer


def test_the_ratio_is_recorded_whatever_the_method() -> None:
    for found in (scales(), scales(epoch=3), scales(method="none")):
        assert found.metrics["ratio"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("found", [scales(epoch=3), scales(method="none")])
def test_before_its_first_epoch_a_method_changes_nothing(found: StepScales) -> None:
    assert found[:4] == (None,) * 4
    assert found.metrics["coefficient"].tolist() == [1.0, 1.0]


def test_modulation_and_noise_act_where_the_config_says() -> None:
    gradient, update = scales(acts_on="gradient"), scales(acts_on="update")
    k = gradient.metrics["coefficient"]
    assert k[0] < k[1] == 1.0
    assert gradient.gradient is k
    assert update.update is not None
    assert torch.equal(update.update, k)
    assert (gradient.update, gradient.update_noise, update.gradient, update.gradient_noise) == (None,) * 4
    assert gradient.gradient_noise is not None
    assert update.update_noise is not None
    quiet = scales(noise=False)
    assert (quiet.gradient_noise, quiet.update_noise) == (None, None)
