"""Plots of an audit, in the style of those of a run: SVG text to inline in a page.

A split has the same colour everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ada2i.audit.records import AuditReport
from ada2i.reports import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Mapping[str, str] = {"train": "#33415c", "dev": "#e69f00", "test": "#56b4e9", "gate": "#009e73"}
_OTHER = "#999999"
_BARS = 0.8  # share of a group's space for its bars


def class_plot(report: AuditReport) -> str | None:
    """Draw the share of each class in each split; return None if no split has labels."""
    splits = {
        name: split.classes for name, split in report.splits.items() if split.classes and sum(split.classes.values())
    }
    if not splits:
        return None
    shares = {name: [number / sum(found.values()) for number in found.values()] for name, found in splits.items()}
    labels = list(next(iter(splits.values())))
    return _grouped("audit-classes", "Share of each class in each split", labels, shares, "share of the split")


def missing_plot(report: AuditReport) -> str | None:
    """Draw the share of missing and of all-zero vectors by modality and split, or return None if there are none."""
    kinds = [
        (name, kind)
        for name, modality in report.modalities.items()
        for kind in ("missing", "zero")
        if any(getattr(found, kind) for found in modality.splits.values())
    ]
    if not kinds:
        return None
    shares = {
        split: [getattr(report.modalities[m].splits[split], kind) / found.utterances for m, kind in kinds]
        for split, found in report.splits.items()
    }
    labels = [f"{modality}, {kind}" for modality, kind in kinds]
    description = "Share of missing and of all-zero vectors, by modality and split"
    return _grouped("audit-missing", description, labels, shares, "share of the split's utterances")


def length_plot(report: AuditReport) -> str | None:
    """Draw the share of dialogues up to each length; return None if there are no dialogues."""
    found = {name: split.lengths.histogram for name, split in report.splits.items() if split.lengths}
    if not found:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for split, histogram in found.items():
            total, reached, heights = sum(histogram.values()), 0, []
            for number in histogram.values():
                reached += number
                heights.append(reached / total)
            lengths = list(histogram)
            axes.step([lengths[0], *lengths], [0, *heights], where="post", color=_colour(split), label=split)
        axes.set(xlabel="utterances of a dialogue", ylabel="share of dialogues up to that", ylim=(0, 1.02))
        _legend(axes, len(found))

    return plots.draw("audit-lengths", "Dialogue lengths, cumulated, by split", (plots.HALF, 2.9), paint)


def _grouped(
    name: str, description: str, labels: Sequence[str], shares: Mapping[str, Sequence[float]], unit: str
) -> str:
    """Draw horizontal bars: a group for each label, with a bar for each split."""
    thick = _BARS / len(shares)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, (split, values) in enumerate(shares.items()):
            at = [row - _BARS / 2 + thick * (place + 0.5) for row in range(len(labels))]
            axes.barh(at, values, height=thick * 0.9, color=_colour(split), label=split)
        axes.set_yticks(range(len(labels)), [plots.short(label) for label in labels])
        axes.set(xlabel=unit, ylim=(len(labels) - 0.5, -0.5))
        axes.set_xlim(0, max(0.05, 1.05 * max(map(max, shares.values()))))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, pad=7, labelcolor=plots.INK)
        _legend(axes, len(shares))

    height = 1.2 + (0.16 * len(shares) + 0.14) * len(labels)
    return plots.draw(name, description, (plots.HALF, height), paint)


def _legend(axes: "Axes", columns: int) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.985), ncols=columns, borderpad=0.2, handlelength=1.2)


def _colour(split: str) -> str:
    return _COLOURS.get(split, _OTHER)
