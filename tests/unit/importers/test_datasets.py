import pytest

from ada2i.errors import DataError
from ada2i.importers.datasets import DATASETS, dataset
from ada2i.presets import settings_for


@pytest.mark.parametrize(
    ("name", "classes", "settings"),
    [
        ("iemocap", 6, "iemocap"),
        ("iemocap-4", 4, "iemocap"),
        ("meld", 7, "meld"),
        ("cmu-mosei-2", 2, "mosei"),
        ("cmu-mosei-7", 7, "mosei"),
        ("cmu-mosi-2", 2, "mosi"),
        ("cmu-mosi-7", 7, "mosi"),
    ],
)
def test_names_tell_classes_and_published_settings(name: str, classes: int, settings: str) -> None:
    found = dataset(name)
    assert (found.name, len(set(found.labels)), settings_for(found.name)) == (name, classes, settings)
    assert found.title
    assert found.splits
    assert found.speakers


def test_there_are_no_others() -> None:
    assert len(DATASETS) == 7
    with pytest.raises(
        DataError,
        match=r"`dataset` must be one of iemocap, .*mosi, mosei, sims, but is 'melt'\. Choose one",
    ):
        dataset("melt")
