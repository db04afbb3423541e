"""Puts utterances that a reader found together as a corpus, and counts what they lack."""

from collections.abc import Iterable, Sequence

from ada2i.errors import DataError
from ada2i.extraction.utterance import Corpus, Utterance
from ada2i.importers.datasets import Dataset


def published(
    dataset: Dataset, source: str, licence: str, utterances: Iterable[Utterance], problems: Sequence[str]
) -> Corpus:
    """Return a published corpus with known name and classes.

    Args:
        dataset: Which.
        source: Where it was read from, without credentials.
        licence: Under what terms, for people.
        utterances: In any order.
        problems: Further findings.

    Raises:
        DataError: There is no utterance.
    """
    held = in_order(utterances)
    if not held:
        raise DataError(
            f"{source} must hold utterances of {dataset.title}, but none of its files has one with a label of "
            f"{', '.join(dataset.labels)}. Check that the release is complete.",
            uri=source,
        )
    return Corpus(dataset.name, dataset.labels, source, licence, held, (*problems, *lacking(held)))


def in_order(utterances: Iterable[Utterance]) -> tuple[Utterance, ...]:
    """Return utterances by split, dialogue and index, the order of feature shards."""
    return tuple(sorted(utterances, key=lambda item: (item.split, item.dialogue_id, item.utterance_index)))


def lacking(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """Return sentences that count the utterances without text, audio, video or label."""
    counts = {
        "text": sum(item.text is None for item in utterances),
        "audio": sum(item.audio is None for item in utterances),
        "video": sum(item.video is None for item in utterances),
        "label": sum(item.label is None for item in utterances),
    }
    return tuple(
        f"{number} of {len(utterances)} utterances have no {what}." for what, number in counts.items() if number
    )
