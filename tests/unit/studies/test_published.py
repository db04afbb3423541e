"""The paper's numbers, and the results that they can be compared with."""

import re
from pathlib import Path

import pytest

from ada2i.records import FeatureInfo
from ada2i.studies.published import TABLES, Published, other_widths, printed, published


def features(classes: int = 6, **widths: int) -> FeatureInfo:
    return FeatureInfo(
        uri="file:///f",
        dataset="iemocap",
        fingerprint="0",
        synthetic=False,
        labels=tuple(map(str, range(classes))),
        widths={"text": 768, "audio": 512, "visual": 1024, **widths},
    )


def test_modalities_may_come_in_any_order() -> None:
    table = published("iemocap", features())
    assert printed(table, "vat", "") == Published(weighted_f1=0.6897, accuracy=0.6876)
    assert printed(table, "at", "") == Published(weighted_f1=0.6691, accuracy=0.6728)
    assert printed(table, "tav", "no_amw") == Published(weighted_f1=0.6611)


@pytest.mark.parametrize(("letters", "change"), [("t", ""), ("ta", "no_afw"), ("tav", "model.amw.scale=5")])
def test_what_the_paper_does_not_print(letters: str, change: str) -> None:
    assert printed(published("iemocap", features()), letters, change) is None


def test_the_repeated_number_is_left_out() -> None:
    assert printed(TABLES["meld"], "av", "") is None
    assert printed(TABLES["iemocap"], "av", "") is not None


@pytest.mark.parametrize(("dataset", "classes"), [("iemocap", 4), ("meld", 6), ("mosi", 2), ("mosei", 2)])
def test_other_classes_are_another_task(dataset: str, classes: int) -> None:
    assert published(dataset, features(classes)) is None
    assert printed(None, "tav", "") is None


def test_made_up_data_have_no_published_numbers() -> None:
    assert published("iemocap", features().model_copy(update={"synthetic": True})) is None


def test_other_widths_are_named() -> None:
    assert other_widths(TABLES["iemocap"], features()) == ""
    assert other_widths(TABLES["iemocap"], features(text=384)) == "text 384 wide (paper: 768)"


def test_numbers_are_those_of_the_document() -> None:
    document = Path(__file__).resolve().parents[4] / "shared" / "docs" / "model.md"
    if not document.is_file():
        pytest.skip(f"{document} is absent")
    text = document.read_text()
    for name, title in (
        ("iemocap", "IEMOCAP-6"),
        ("meld", "MELD"),
        ("mosei-2", "MOSEI-2 acc"),
        ("mosei-7", "MOSEI-7 acc"),
    ):
        line = next(line for line in text.splitlines() if line.startswith(f"| {title} | ") and "." in line)
        numbers = [float(found) / 100 for found in re.findall(r"\d+\.\d+", line)]
        ours = [
            value
            for letters in ("tav", "ta", "tv", "av")
            for scores in [printed(TABLES[name], letters, "") or Published()]
            for value in (scores.weighted_f1, scores.accuracy)
            if value is not None
        ]
        assert ours == pytest.approx(numbers)
