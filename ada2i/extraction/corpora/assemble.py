"""Builds a corpus from the utterances that a reader found, and counts missing parts."""

from collections.abc import Iterable, Sequence

from ada2i.errors import DataError
from ada2i.extraction.utterance import Corpus, Utterance
from ada2i.importers.datasets import Dataset


def published(
    dataset: Dataset, source: str, licence: str, utterances: Iterable[Utterance], problems: Sequence[str]
) -> Corpus:
    """Return a published corpus, whose name and classes are known.

    Args:
        dataset: The published dataset.
        source: Where it was read from, without credentials.
        licence: Its terms of use, as text for people.
        utterances: In any order.
        problems: Problems that the reader found.

    Raises:
        DataError: There are no utterances.
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
    """Return utterances sorted by split, dialogue and index, the order of feature shards."""
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
