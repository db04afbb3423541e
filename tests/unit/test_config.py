"""Config models are frozen, refuse what they do not know, and check what types cannot."""

from typing import Any

import pytest
from pydantic import ValidationError

from ada2i.config import Ada2IBalance, AfwConfig, EncoderConfig, ModelConfig, TrainConfig, TrainingConfig
from ada2i.presets import resolve

AFW = {"rank": 3, "beta": 0.1}
TRAINING = {"learning_rate": 1e-3, "batch_dialogues": 4, "epochs": 2}


def example() -> TrainConfig:
    return resolve(preset="reference", settings="meld", overrides={"training.seeds": [3, 1]})


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        example().model.hidden_dim = 3  # type: ignore[misc]


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        TrainingConfig.model_validate({**TRAINING, "learning_rte": 1.0})


def test_json_round_trip_changes_nothing() -> None:
    config = example()
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_another_schema_version_is_refused() -> None:
    stored = example().model_dump(mode="json") | {"schema_version": 2}
    with pytest.raises(ValidationError, match="schema_version"):
        TrainConfig.model_validate(stored)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (ModelConfig, {"hidden_dim": 0, "afw": AFW}, "greater than or equal to 1"),
        (ModelConfig, {"hidden_dim": 4, "afw": AFW, "modalities": ["text", "text"]}, "must differ from one another"),
        (ModelConfig, {"hidden_dim": 4, "afw": AFW, "modalities": []}, "at least 1"),
        (ModelConfig, {"hidden_dim": 4, "afw": AFW, "modalities": ["smell"]}, "'text', 'audio' or 'visual'"),
        (ModelConfig, {"hidden_dim": 5, "afw": AFW, "encoder": {"kind": "lstm"}}, "even for LSTM"),
        (AfwConfig, {"rank": 3, "beta": -0.1}, "greater than or equal to 0"),
        (AfwConfig, {"rank": 3, "beta": float("nan")}, "finite number"),
        (EncoderConfig, {"dropout": 1.0}, "less than 1"),
        (Ada2IBalance, {"alpha": float("inf")}, "finite number"),
        (Ada2IBalance, {"alpha": 0.1, "start_epoch": 0}, "greater than or equal to 1"),
        (TrainingConfig, {**TRAINING, "learning_rate": 0.0}, "greater than 0"),
        (TrainingConfig, {**TRAINING, "seeds": [1, 1]}, "different integers"),
        (TrainingConfig, {**TRAINING, "seeds": [-1]}, "different integers"),
        (TrainingConfig, {**TRAINING, "seeds": []}, "at least 1"),
    ],
)
def test_bad_values_are_refused(model: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(fields)


def test_odd_width_is_fine_for_transformers() -> None:
    config = ModelConfig.model_validate({"hidden_dim": 5, "afw": AFW})
    assert config.hidden_dim == 5


def stored(**changed: Any) -> dict[str, Any]:
    """Return a stored config; keywords are dotted fields with __ for dots."""
    tree = example().model_dump(mode="json")
    for name, value in changed.items():
        *parents, leaf = name.split("__")
        group = tree
        for parent in parents:
            group = group[parent]
        group[leaf] = value
    return tree


def test_a_config_from_before_the_methods_is_ada2is() -> None:
    tree = stored()
    del tree["balance"]["method"]
    del tree["resources"]["fast_cpu"]
    assert TrainConfig.model_validate(tree) == example()


def test_no_balancing_has_few_fields() -> None:
    config = TrainConfig.model_validate(stored(balance={"method": "none"}))
    assert config.balance.model_dump() == {"method": "none", "ratio": "linear"}


@pytest.mark.parametrize("method", ["cggm", 3, ["ada2i"], None])
def test_unknown_methods_are_refused(method: Any) -> None:
    with pytest.raises(ValidationError, match="`method` must be one of ada2i, none"):
        TrainConfig.model_validate(stored(balance__method=method))


def test_removed_fields_load_with_the_value_that_they_had_by_default() -> None:
    tree = stored(model__amw__learn_scale=False, model__modality_dropout=0.0)
    assert TrainConfig.model_validate(tree) == example()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model__amw__learn_scale": True},
            "`learn_scale` was removed and must be False, but is True. Use",
        ),
        ({"model__modality_dropout": 0.2}, "`modality_dropout` was removed and must be 0.0, but is 0.2"),
        ({"model__normalise": "speaker"}, "'none' or 'train'"),
        ({"model__encoder__positions": True}, "need `encoder.kind=context`"),
    ],
)
def test_what_was_removed_is_refused_with_another_value(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(stored(**changed))
