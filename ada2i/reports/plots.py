"""Plots as SVG text to inline in a page, or as PNG: no scripts, no files, the same bytes for the same records.

Matplotlib's figures are used directly, without ``pyplot``, so calls share no state, and it is imported only
if a plot is drawn. Colours are Okabe and Ito's, which colour-blind readers can distinguish; a modality has the same
colour everywhere.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ada2i.modalities import MODALITIES, Modality
from ada2i.records import Calibration, EpochRecord, Scores, SeedResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODALITY_COLOURS: Mapping[Modality, str] = dict(zip(MODALITIES, _PALETTE, strict=False))

INK, _MUTED, _GRID = "#1f2430", "#5d6472", "#e3e6eb"
_MACRO = "#b0578d"  # differs from the ink of weighted F1 in hue and dashes
_BAR, _DARKEST = "#b9c3d4", "#33415c"
_DPI = 144
_WIDTH, HALF = 10.0, 4.9  # inches: 960 and 470 pixels on a page
_RHO = "\N{GREEK SMALL LETTER RHO}"
_APART = 0.06  # least distance in coverage of two points with a number
_LONGEST = 18  # characters of a class name; longer names are cut
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

_STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a class name may contain dollar signs
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "figure.constrained_layout.wspace": 0.05,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # text stays text: selectable, small, in the page's font
}

_Values = Callable[[EpochRecord], float]


def learning_curves(seeds: Sequence[SeedResult], best_seed: int) -> str:
    """Draw loss terms and dev F1 per epoch, a line per seed; dots mark each seed's best epoch.

    Args:
        seeds: One result per seed, of one epoch or more each.
        best_seed: The seed with the thick line.

    Returns:
        An ``<svg>`` element of 960 x 288 pixels.
    """

    def paint(figure: "Figure") -> None:
        classification, feature, dev = figure.subplots(1, 3)
        _curves(classification, seeds, best_seed, lambda epoch: epoch.classification_loss, INK)
        _label(classification, "Classification loss (train)", "nats per utterance")
        _curves(feature, seeds, best_seed, lambda epoch: epoch.feature_loss, INK)
        _label(feature, "Feature loss (train)", "mean L1 distance")
        _curves(dev, seeds, best_seed, lambda epoch: epoch.dev_weighted_f1, INK, name="weighted")
        _curves(dev, seeds, best_seed, lambda epoch: epoch.dev_macro_f1, _MACRO, name="macro", dashes=(4, 1.5))
        _label(dev, "F1 (dev)", "F1, 0 to 1")
        _legend(dev, columns=2)

    return draw("learning", "Loss terms and dev F1 per epoch, one line per seed", (_WIDTH, 3.0), paint)


def balance_curves(seeds: Sequence[SeedResult], best_seed: int, start_epoch: int | None) -> str:
    """Draw disparity ratio and modulation coefficient per epoch by modality, side by side.

    Args:
        seeds: One result per seed, of one epoch or more each.
        best_seed: The seed with the thick lines.
        start_epoch: The first epoch with modulation, counted from 1; None without modulation.

    Returns:
        An ``<svg>`` element of 960 x 298 pixels.
    """

    def paint(figure: "Figure") -> None:
        ratio, coefficient = figure.subplots(1, 2)
        for modality in (name for name in MODALITIES if all(name in seed.history[0].ratio for seed in seeds)):
            colour = MODALITY_COLOURS[modality]
            _curves(ratio, seeds, best_seed, _ratio(modality), colour, name=modality)
            _curves(coefficient, seeds, best_seed, _coefficient(modality), colour)
        ratio.axhline(1, color=_MUTED, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        _label(ratio, f"Disparity ratio {_RHO}", f"{_RHO}, 1 is the weakest modality")
        coefficient.set_ylim(0, max(1.05, coefficient.get_ylim()[1]))
        _label(coefficient, "Modulation coefficient k", "k, 1 is unmodulated")
        _mark_start(coefficient, start_epoch, max(len(seed.history) for seed in seeds))
        _legend(ratio, columns=3)

    description = "Disparity ratio and modulation coefficient per epoch, by modality"
    return draw("balance", description, (_WIDTH, 3.1), paint)


def confusion_plot(scores: Scores) -> str:
    """Draw confusion counts; a cell's colour is its share of the true class.

    Args:
        scores: Scores of one model on one split.

    Returns:
        An ``<svg>`` element, 470 pixels wide.
    """
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # a class without utterances stays blank
    names = [short(row.label) for row in scores.classes]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        _cells(axes, shares)
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8.5)
        axes.set_xticks(range(len(names)), names, **_slanted(names))
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class")

    description = "Confusion counts, true class by predicted class"
    return draw("confusion", description, (HALF, _half_height(len(names))), paint)


def class_scores(tests: Sequence[Scores]) -> str:
    """Draw the F1 of each class: the bar is the mean over seeds, a dot one seed.

    Args:
        tests: Scores of each seed on the same split.

    Returns:
        An ``<svg>`` element, 470 pixels wide.
    """
    classes = tests[0].classes
    values = np.array([[row.f1 for row in test.classes] for test in tests])  # (seeds, C)
    places = range(len(classes))

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(places, values.mean(axis=0), height=0.58, color=_BAR)
        for seed in values if len(tests) > 1 else ():
            axes.plot(seed, places, linestyle="", marker="o", markersize=4, color=_DARKEST, alpha=0.75, clip_on=False)
        for place, mean in enumerate(values.mean(axis=0).tolist()):
            axes.text(1.04, place, f"{mean:.4f}", va="center", fontsize=8.5)
        axes.set_yticks(places, [f"{short(row.label)} ({row.support})" for row in classes])
        axes.set(xlim=(0, 1), xlabel="F1, 0 to 1", ylim=(len(classes) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, pad=7, labelcolor=INK)

    description = "F1 by class: mean over seeds, and each seed"
    return draw("classes", description, (HALF, _half_height(len(classes))), paint)


def reliability_plot(calibration: Calibration) -> str:
    """Draw accuracy by confidence, without and with the temperature; the size of a dot grows with its utterances.

    Args:
        calibration: Of one seed.

    Returns:
        An ``<svg>`` element, 470 pixels wide.
    """
    lines = (
        ("as trained", calibration.before, _PALETTE[1]),
        (f"temperature {calibration.temperature:.2f}", calibration.after, _PALETTE[0]),
    )

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=_MUTED, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        for name, bins, colour in lines:
            confidence, accuracy = [each.confidence for each in bins], [each.accuracy for each in bins]
            total = sum(each.utterances for each in bins)
            sizes = [8 + 150 * each.utterances / total for each in bins]
            axes.plot(confidence, accuracy, color=colour, linewidth=1.2, label=name)
            axes.scatter(confidence, accuracy, s=sizes, color=colour, alpha=0.75, linewidths=0)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        axes.set_title("Reliability")
        _legend(axes, columns=1)

    return draw("reliability", "Accuracy by confidence, without and with the temperature", (HALF, 3.6), paint)


def risk_plot(calibration: Calibration) -> str:
    """Draw the share of errors by the share of utterances that keep a label; numbers are minimum confidences.

    Args:
        calibration: Of one seed.

    Returns:
        An ``<svg>`` element, 470 pixels wide.
    """
    points = calibration.risk
    highest = max(point.risk for point in points)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        coverage, risk = [point.coverage for point in points], [point.risk for point in points]
        axes.plot(coverage, risk, color=_DARKEST, linewidth=1.5, marker="o", markersize=3.5)
        written: list[float] = []
        for point in points:
            if all(abs(point.coverage - other) > _APART for other in written):
                written.append(point.coverage)
                axes.annotate(
                    f"{point.min_confidence:g}",
                    (point.coverage, point.risk),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=_MUTED,
                )
        axes.set(xlim=(0, 1.03), ylim=(0, 1.15 * max(highest, 0.01)))
        axes.set(xlabel="coverage: share of utterances with a label", ylabel="risk: share of errors among them")
        axes.set_title("Risk and coverage")

    return draw("risk", "Share of errors by share of utterances with a label", (HALF, 3.6), paint)


def _half_height(classes: int) -> float:
    """Return the height in inches of the confusion and class-F1 plots, which stand side by side."""
    return 2.2 + 0.36 * min(classes, 8)


def _ratio(modality: Modality) -> _Values:
    return lambda epoch: epoch.ratio[modality]


def _coefficient(modality: Modality) -> _Values:
    return lambda epoch: epoch.coefficient[modality]


def draw(name: str, description: str, inches: tuple[float, float], paint: Callable[["Figure"], None]) -> str:
    """Return the SVG of a figure on which ``paint`` draws."""
    file = io.StringIO()
    with _painted(inches, paint, {"svg.hashsalt": name}) as figure:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(file.getvalue(), description)


def draw_png(inches: tuple[float, float], paint: Callable[["Figure"], None]) -> bytes:
    """Return the PNG of a figure on which ``paint`` draws."""
    file = io.BytesIO()
    with _painted(inches, paint, {}) as figure:
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


@contextmanager
def _painted(
    inches: tuple[float, float], paint: Callable[["Figure"], None], more: Mapping[str, Any]
) -> Iterator["Figure"]:
    import matplotlib.style
    from matplotlib.figure import Figure

    # "default" first: a matplotlibrc on the machine must not change a report.
    with matplotlib.style.context(["default", {**_STYLE, **more}]), warnings.catch_warnings():
        # If the layout's font lacks a script, the reader's browser still draws the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        paint(figure)
        yield figure


def _inline(document: str, description: str) -> str:
    """Make an SVG document an element of a page: no prologue, no rule that affects the page, only ids that are used.

    Ids in use are hashes salted with the plot's name, so several plots can share a page.
    """
    used = set(re.findall(r'[("]#([\w.-]+)[)"]', document))

    def clean(tag: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag[0])
        return re.sub(r"font-family: [^;\"]*(; )?", "", text)

    element = document[document.index("<svg") :]
    element = re.sub(r"<style.*?</style>", "", element, count=1, flags=re.DOTALL)
    element = re.sub(r"<[^>]*>", clean, element)  # tags only: a class name may look like an attribute
    style = f"font-family: {_FONTS}; stroke-linejoin: round; stroke-linecap: butt"
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(description)}" style="{style}"', 1).strip()


def _curves(
    axes: "Axes",
    seeds: Sequence[SeedResult],
    best_seed: int,
    value: _Values,
    colour: str,
    *,
    name: str = "",
    dashes: tuple[float, float] | None = None,
) -> None:
    """Draw a line per seed, the best seed's last and thick, with a dot at each seed's best epoch."""
    for result in sorted(seeds, key=lambda seed: seed.seed == best_seed):
        best = result.seed == best_seed
        epochs, values = [epoch.epoch for epoch in result.history], [value(epoch) for epoch in result.history]
        style: Mapping[str, Any] = {"color": colour, "alpha": 1.0 if best else 0.45}
        axes.plot(
            epochs,
            values,
            linewidth=1.7 if best else 0.9,
            linestyle="-" if dashes is None else (0, dashes),
            label=name if best and name else None,
            **style,
        )
        chosen = epochs.index(result.best_epoch)
        axes.plot(epochs[chosen], values[chosen], marker="o", markersize=5.5 if best else 4, **style)


def _label(axes: "Axes", title: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set(xlabel="epoch", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.margins(x=0.03)


def _legend(axes: "Axes", columns: int) -> None:
    # Above the panel, right of its title, where it hides no line.
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.01, 0.975),
        ncols=columns,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _mark_start(axes: "Axes", start_epoch: int | None, last_epoch: int) -> None:
    if start_epoch is None or start_epoch > last_epoch:
        return
    axes.axvline(start_epoch, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        f"modulation from epoch {start_epoch}",
        (start_epoch, 0.03),
        xytext=(4, 0),
        textcoords="offset points",
        color=_MUTED,
        fontsize=8.5,
    )


def _cells(axes: "Axes", shares: "NDArray[np.float64]") -> None:
    """Draw a coloured square per cell, as vectors."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("slate", ["#f6f7fa", "#9fb0cc", _DARKEST])
    axes.grid(visible=False)
    edges = np.arange(len(shares) + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)


def _slanted(names: Sequence[str]) -> dict[str, Any]:
    """Return text properties that keep names below a matrix apart."""
    if max(map(len, names)) * len(names) <= 34:
        return {}
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


def short(name: str) -> str:
    """Return a name, cut if it is too long for a plot."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
