"""The field's datasets: classes in the order that published files number them, official splits, and speakers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ada2i.errors import DataError


@dataclass(frozen=True)
class SplitSize:
    """How much a published split holds."""

    dialogues: int
    utterances: int


@dataclass(frozen=True)
class Dataset:
    """What everyone knows of a dataset before opening a file of it.

    Attributes:
        name: What feature sets of it are called; a word of it names the published settings.
        title: What people call it.
        labels: Class names, by the class index of published files.
        splits: Where the splits come from, as a sentence.
        sizes: By our name of a split, its published size; empty where publications disagree.
        speakers: What a speaker's name means, for people.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    splits: str
    speakers: str
    sizes: Mapping[str, SplitSize] = field(default_factory=dict)


_SENTIMENT_2 = ("negative", "non-negative")
# The order of the released code, which is not that of the scale.
_SENTIMENT_7 = (
    "Strong Negative",
    "Weak Negative",
    "Negative",
    "Neutral",
    "Positive",
    "Weak Positive",
    "Strong Positive",
)
_IEMOCAP_SPLITS = "train: sessions 1 to 4; test: session 5; no dev"
_IEMOCAP_SPEAKERS = "M or F, two actors in a dialogue; each session has its own pair, so no speaker is in both splits"
_MOSEI_SPLITS = "train, dev and test by video, as published with the corpus (CMU SDK)"
_MOSI_SPLITS = "train and test by video, as in Poria et al. 2017 (ACL), the split of its published features; no dev"
_ONE_SPEAKER = "one speaker in a video; no names published"

DATASETS: Mapping[str, Dataset] = {
    entry.name: entry
    for entry in (
        Dataset(
            name="iemocap",
            title="IEMOCAP, 6 emotions",
            labels=("hap", "sad", "neu", "ang", "exc", "fru"),
            splits=_IEMOCAP_SPLITS,
            speakers=_IEMOCAP_SPEAKERS,
            sizes={"train": SplitSize(120, 5810), "test": SplitSize(31, 1623)},
        ),
        Dataset(
            name="iemocap-4",
            title="IEMOCAP, 4 emotions",
            labels=("hap", "sad", "neu", "ang"),
            splits=_IEMOCAP_SPLITS,
            speakers=_IEMOCAP_SPEAKERS,
        ),
        Dataset(
            name="meld",
            title="MELD, 7 emotions",
            labels=("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
            splits="train, dev and test as published; ids restart in each, and train has no dialogue 60",
            speakers="names of roles; most of those in test are in train too; pickles number a dialogue's speakers",
            sizes={"train": SplitSize(1038, 9989), "dev": SplitSize(114, 1109), "test": SplitSize(280, 2610)},
        ),
        Dataset(
            name="cmu-mosei-2",
            title="CMU-MOSEI, 2 sentiments",
            labels=_SENTIMENT_2,
            splits=_MOSEI_SPLITS,
            speakers=_ONE_SPEAKER,
        ),
        Dataset(
            name="cmu-mosei-7",
            title="CMU-MOSEI, 7 sentiments",
            labels=_SENTIMENT_7,
            splits=_MOSEI_SPLITS,
            speakers=_ONE_SPEAKER,
        ),
        Dataset(
            name="cmu-mosi-2",
            title="CMU-MOSI, 2 sentiments",
            labels=_SENTIMENT_2,
            splits=_MOSI_SPLITS,
            speakers=_ONE_SPEAKER,
            sizes={"train": SplitSize(62, 1447), "test": SplitSize(31, 752)},
        ),
        Dataset(
            name="cmu-mosi-7",
            title="CMU-MOSI, 7 sentiments",
            labels=_SENTIMENT_7,
            splits=_MOSI_SPLITS,
            speakers=_ONE_SPEAKER,
        ),
    )
}


def dataset(name: str) -> Dataset:
    """Return a dataset by its name.

    Raises:
        DataError: No dataset has that name.
    """
    found = DATASETS.get(name.strip().lower())
    if found is None:
        raise DataError(
            f"`dataset` must be one of {', '.join(DATASETS)}, but is {name!r}. Choose one of these; any other corpus "
            "is imported as a table.",
            field="dataset",
        )
    return found
