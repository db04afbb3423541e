"""The benchmarks' own code still runs; their figures are not judged."""

import pytest

from tests.benchmarks import encoders, imbalance, prediction, shapes


@pytest.mark.slow
def test_a_small_prediction_is_measured() -> None:
    figures = {figure.name: figure.value for figure in prediction.measure(2_000)}
    assert len(figures) == 4
    assert min(figures.values()) > 0


@pytest.mark.slow
def test_umt_is_measured_with_its_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imbalance, "BATCHES", 2)
    monkeypatch.setattr(imbalance, "EPOCHS", 1)
    network, audio = imbalance.trained("umt", 1)
    assert 0 <= network <= 1
    assert 0 <= audio <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(encoders.KINDS))
def test_each_encoder_takes_a_step(kind: str) -> None:
    step, parameters, kept = encoders.stepper(kind)
    assert step() > 0
    assert parameters > 10**6
    assert kept > 2**20


def test_planted_data_is_a_table_of_whole_dialogues() -> None:
    table = imbalance.planted_table(1)
    assert table.num_rows == table["dialogue_id"].combine_chunks().unique().to_numpy(zero_copy_only=False).size * 8
    assert set(table["label"].to_pylist()) == {"c0", "c1", "c2", "c3"}
    assert table.schema.field("audio_feat").type.list_size == imbalance.WIDTHS["audio"]


@pytest.mark.slow
def test_a_score_that_is_not_above_the_floor_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHAPES", (shapes.Shape("few", dialogues=12, present=0.8),))
    _, (_, said) = shapes.measure(1)
    assert said.met
