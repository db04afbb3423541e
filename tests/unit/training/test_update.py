"""The update against its parts by hand; the step's own test holds the whole."""

from ada2i.training.update import make_optimizer
from tests.unit.model.batches import build


def test_groups_are_the_encoders_and_the_rest() -> None:
    model = build()
    optimizer = make_optimizer(model, learning_rate=0.1, weight_decay=0.0)
    *encoders, rest = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    for modality, group in zip(model.modalities, encoders, strict=True):
        assert all(names[id(p)].startswith(f"encoders.{modality}.") for p in group["params"])
    found = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(names.values())
    assert not any(names[id(p)].startswith("encoders.") for p in rest["params"])
