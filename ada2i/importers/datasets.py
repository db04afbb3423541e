"""The published datasets: classes in the order of published files, official splits, and speakers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ada2i.errors import DataError


@dataclass(frozen=True)
class SplitSize:
    """The published size of a split."""

    dialogues: int
    utterances: int


@dataclass(frozen=True)
class Dataset:
    """General facts about a dataset, known without its files.

    Attributes:
        name: Name of its feature sets; a word of it names the published settings.
        title: Its common name.
        labels: Class names, by the class index in published files.
        splits: Where the splits come from, as a sentence.
        sizes: Published size by canonical split name; empty if publications disagree.
        speakers: What a speaker's name means, as text for people.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    splits: str
    speakers: str
    sizes: Mapping[str, SplitSize] = field(default_factory=dict)


_SENTIMENT_2 = ("negative", "non-negative")
# The class order of the released code, which differs from the scale's.
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

_MMSA_SPLITS = "train, valid and test as in the file that MMSA publishes"
MMSA_DATASETS: Mapping[str, Dataset] = {  # only as MMSA's pickles
    name: Dataset(name, title, ("negative", "neutral", "positive"), _MMSA_SPLITS, _ONE_SPEAKER)
    for name, title in (
        ("mosi", "CMU-MOSI, 3 sentiments"),
        ("mosei", "CMU-MOSEI, 3 sentiments"),
        ("sims", "CH-SIMS, 3 sentiments"),
    )
}

# By rounded score. Classes are named, not numbered, since the released code's class order differs from the scale's.
_SEVEN: Mapping[int, str] = {
    -3: "Strong Negative",
    -2: "Negative",
    -1: "Weak Negative",
    0: "Neutral",
    1: "Weak Positive",
    2: "Positive",
    3: "Strong Positive",
}


def sentiment(score: float, classes: int) -> str:
    """Return the class of a score from -3 to 3: of two (0 is non-negative), three (0 is neutral) or seven classes."""
    if classes == 2:
        return "negative" if score < 0 else "non-negative"
    if classes == 3:
        return "negative" if score < 0 else "positive" if score > 0 else "neutral"
    return _SEVEN[int(np.clip(np.round(score), -3, 3))]  # halves round to even, as in published code


def dataset(name: str) -> Dataset:
    """Return a dataset by its name.

    Raises:
        DataError: No dataset has this name.
    """
    every = {**DATASETS, **MMSA_DATASETS}
    found = every.get(name.strip().lower())
    if found is None:
        raise DataError(
            f"`dataset` must be one of {', '.join(every)}, but is {name!r}. Choose one of these; any other corpus "
            "is imported as a table.",
            field="dataset",
        )
    return found
