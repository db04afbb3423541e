"""Config models are frozen, refuse what they do not know, and check what types cannot."""

from typing import Any

import pytest
from pydantic import ValidationError

from ada2i.config import AfwConfig, BalanceConfig, EncoderConfig, ModelConfig, TrainConfig, TrainingConfig
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
        (BalanceConfig, {"alpha": float("inf")}, "finite number"),
        (BalanceConfig, {"alpha": 0.1, "start_epoch": 0}, "greater than or equal to 1"),
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
