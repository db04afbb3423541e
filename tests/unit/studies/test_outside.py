"""Predictions from elsewhere: read from any table, compared by the same tests, refused if they do not fit."""

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import ada2i
from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError, DataError
from ada2i.evaluation.metrics import confusion_matrix, scores
from ada2i.store import Store
from ada2i.studies import outside

LABELS = ("joy", "anger")
TRUTH = pa.table({"dialogue_id": ["7", "7", "8"], "utterance_index": [0, 1, 0], "label": [1, 0, 0]})
ROWS = [
    {"dialogue_id": "8", "utterance_index": 0, "p_joy": 0.9, "p_anger": 0.1},
    {"dialogue_id": "7", "utterance_index": 1, "p_joy": 0.2, "p_anger": 0.8},
    {"dialogue_id": "7", "utterance_index": 0, "p_joy": 0.3, "p_anger": 0.7},
]


def write(folder: Path, rows: list[dict[str, Any]], suffix: str = ".parquet") -> str:
    file = folder / f"theirs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == ".csv":
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def read(source: str) -> dict[str, Any]:
    return pq.read_table(io.BytesIO(outside.outside_predictions(source, TRUTH, LABELS))).to_pydict()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_are_matched_by_dialogue_and_utterance_in_every_format(tmp_path: Path, suffix: str) -> None:
    found = read(write(tmp_path, ROWS, suffix))
    assert found["dialogue_id"] == ["7", "7", "8"]
    assert found["prediction"] == [1, 1, 0]
    assert found["label"] == [1, 0, 0]
    assert found["probabilities"][0] == pytest.approx([0.3, 0.7])


def test_dialogues_may_be_numbers(tmp_path: Path) -> None:
    rows = [{**row, "dialogue_id": int(str(row["dialogue_id"]))} for row in ROWS]
    assert read(write(tmp_path, rows))["prediction"] == [1, 1, 0]


@pytest.mark.parametrize("labels", [["joy", "anger", "anger"], [0, 1, 1]], ids=["names", "indices"])
def test_a_predicted_class_is_enough(tmp_path: Path, labels: list[Any]) -> None:
    rows = [
        {"dialogue_id": row["dialogue_id"], "utterance_index": row["utterance_index"], "label": label}
        for row, label in zip(ROWS, labels, strict=True)
    ]
    assert read(write(tmp_path, rows))["prediction"] == [1, 1, 0]


def test_rows_of_other_splits_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = [*ROWS, {"dialogue_id": "9", "utterance_index": 0, "p_joy": 0.5, "p_anger": 0.5}]
    with caplog.at_level(logging.WARNING, "ada2i"):
        assert read(write(tmp_path, more))["prediction"] == [1, 1, 0]
    assert "1 row" in caplog.text


def _without(name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS[:2], "lacks 1, first dialogue 7, utterance 0"),
        ([*ROWS, ROWS[0]], "rows 0 and 3 .* both predict dialogue 8, utterance 0"),
        (_without("p_anger"), "lacks p_anger"),
        (_without("utterance_index"), "lacks utterance_index"),
        ([{**row, "p_joy": 4.2} for row in ROWS], "`p_joy` .* between 0 and 1, .* 4.2.* softmax"),
        ([{**row, "p_joy": float("nan")} for row in ROWS], "between 0 and 1, .* nan"),
        ([{**row, "p_joy": "high"} for row in ROWS], "`p_joy` .* must hold numbers"),
        ([{**row, "utterance_index": "first"} for row in ROWS], "`utterance_index` .* whole numbers"),
        (
            [{"dialogue_id": r["dialogue_id"], "utterance_index": r["utterance_index"], "label": "fury"} for r in ROWS],
            "has 'fury'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, rows: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        read(write(tmp_path, rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A root, a version, and the features that it was trained on."""
    root = str(tmp_path_factory.mktemp("root"))
    run = ada2i.train("demo", {"training.epochs": 1}, seeds=[1], root=root, progress=False)
    return root, run.register("ours"), run.result.features.uri


def _truth(features: str) -> pa.Table:
    return outside.test_labels(open_features(features))


def test_a_version_is_compared_with_a_table_by_the_same_metrics(trained: tuple[str, str, str], tmp_path: Path) -> None:
    root, version, features = trained
    truth, names = _truth(features), open_features(features).manifest.labels
    guesses = np.random.RandomState(0).randint(len(names), size=truth.num_rows)
    theirs = truth.drop_columns("label").append_column("label", pa.array([names[guess] for guess in guesses]))
    pq.write_table(theirs, tmp_path / "theirs.parquet")
    found = usecases.compare(version, str(tmp_path / "theirs.parquet"), Store.open(root))
    expected = scores(confusion_matrix(truth["label"].to_numpy(), guesses, len(names)), names, "test")
    assert (found.first, found.second) == (version, "theirs.parquet")
    assert found.differences["weighted_f1"].second == pytest.approx(expected.weighted_f1)
    assert found.differences["macro_f1"].second == pytest.approx(expected.macro_f1)
    turned = ada2i.compare(theirs.to_pandas(), version, root=root)
    assert turned.differences["weighted_f1"].difference == pytest.approx(-found.differences["weighted_f1"].difference)


def test_our_own_predictions_as_a_table_differ_by_nothing(trained: tuple[str, str, str], tmp_path: Path) -> None:
    root, version, features = trained
    rows = ada2i.load(version, root=root).predict(features)
    own = rows.filter(pc.equal(rows["split"], pa.scalar("test")))
    pq.write_table(own, tmp_path / "own.parquet")
    found = usecases.compare(version, str(tmp_path / "own.parquet"), Store.open(root))
    assert found.changed == 0
    assert all(difference.difference == 0 for difference in found.differences.values())


def test_one_of_the_two_is_a_version(trained: tuple[str, str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="At least one of"):
        usecases.compare(write(tmp_path, ROWS), "other/", Store.open(trained[0]))


def test_the_labels_of_the_test_split_are_those_of_the_features(trained: tuple[str, str, str]) -> None:
    truth = _truth(trained[2])
    assert truth.num_rows == open_features(trained[2]).manifest.splits["test"].utterances
    assert storage.exists(trained[2] + "/manifest.json")


def test_the_true_labels_as_predictions_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = TRUTH.to_pylist()  # with the indices of the true classes
    with caplog.at_level(logging.WARNING, "ada2i"):
        assert read(write(tmp_path, rows))["prediction"] == TRUTH["label"].to_pylist()
    assert "Every `label` of" in caplog.text
