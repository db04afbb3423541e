"""How often nights raise a drift alarm: 200 nights as they are, and with planted changes.

`python -m tests.benchmarks.drift ROOT MODEL@NUMBER` draws nights from the test dialogues of the version's features,
whose labels it does not read, and prints the share of nights that are above a limit.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ada2i.drift import Reference, judge, limits, reference_of
from ada2i.drift.reference import split_sums
from ada2i.inference.predict import Dialogues
from ada2i.inference.sums import Floats
from ada2i.modalities import Modality
from ada2i.registry.references import resolve


def changed(given: Dialogues, modality: Modality, vectors: npt.NDArray[np.float32]) -> Dialogues:
    """Return dialogues with other vectors of a modality; missing ones stay zero."""
    there = given.present[modality][:, None]
    return replace(given, features={**given.features, modality: np.where(there, vectors, np.float32(0))})


def gain(modality: Modality, factor: float) -> Callable[[Dialogues], Dialogues]:
    """Return a change that multiplies a modality's vectors."""
    return lambda given: changed(given, modality, given.features[modality] * np.float32(factor))


def shifted(modality: Modality, share: float) -> Callable[[Dialogues], Dialogues]:
    """Return a change that adds an offset of its own to each column, as another microphone or encoder does.

    Args:
        modality: Whose vectors to change.
        share: Standard deviation of the offsets, in the column's own standard deviations.
    """

    def change(given: Dialogues) -> Dialogues:
        vectors = given.features[modality]
        offsets = share * vectors.std(axis=0) * np.random.default_rng(5).standard_normal(vectors.shape[1])
        return changed(given, modality, vectors + offsets.astype(np.float32))

    return change


def main() -> None:
    """Print a Markdown table: nights with an alarm, and the statistic that is farthest most often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("version")
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--dialogues", type=int, default=30, help="Dialogues of a night.")
    given = parser.parse_args()
    version = resolve(given.root, given.version)
    reference = reference_of(given.root, version)
    nights = Nights(reference, given.nights, given.dialogues)
    show(f"| change | nights with an alarm, of {given.nights} | farthest statistic |\n| --- | --- | --- |\n")
    sums = split_sums(given.root, version, "test")
    show(nights.row("none", sums, np.ones(len(sums))))
    predicted = sums[:, reference.columns.places["predicted"]]
    others = 1 - predicted[:, predicted.sum(axis=0).argmax()] / sums[:, 0]
    show(nights.row("label mix: few dialogues of the most frequent class", sums, others**3 + 0.01))
    for modality in reference.columns.groups:
        changes = {"gain 2": gain(modality, 2.0), "gain 1.25": gain(modality, 1.25)}
        for name, change in {**changes, "offsets of 0.3 sd": shifted(modality, 0.3)}.items():
            sums = split_sums(given.root, version, "test", change)
            show(nights.row(f"{modality}: {name}", sums, np.ones(len(sums))))


class Nights:
    """Draws nights and judges them."""

    def __init__(self, reference: Reference, number: int, dialogues: int) -> None:
        self.reference, self.number, self.dialogues = reference, number, dialogues
        self.bounds = limits(reference, dialogues)

    def row(self, name: str, sums: Floats, weights: Floats) -> str:
        """Return a row of the table, for nights of dialogues with these sums, drawn with these weights."""
        random, found = np.random.default_rng(1), []
        for _ in range(self.number):
            chosen = random.choice(len(sums), self.dialogues, replace=False, p=weights / weights.sum())
            found.append(judge(self.reference, sums[chosen].sum(axis=0), self.dialogues, self.bounds))
        farthest = Counter(result.statistics[0].name for result in found).most_common(1)[0][0]
        return f"| {name} | {sum(result.drifted for result in found)} | {farthest} |\n"


def show(text: str) -> None:
    """Print without buffering."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
