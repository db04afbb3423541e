"""A search as one plot, in the style of a run's plots: scores by trial, learning curves, and a panel per field."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ada2i.reports import plots
from ada2i.search.records import Choice, Dimension, LogUniform, SearchResult, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Mapping[str, str] = {
    "complete": "#0072b2",
    "stopped": "#e69f00",
    "diverged": "#d55e00",
    "failed": "#999999",
}
_COLUMNS = 3  # panels per row
_UNIT = "dev weighted F1"


def search_plot(search: SearchResult) -> bytes:
    """Return a PNG of all trials; the ring marks the winner, the diamond the unchanged config."""
    fields = list(search.space.fields.items())
    rows = 1 + -(-len(fields) // _COLUMNS)

    def paint(figure: "Figure") -> None:
        grid = figure.add_gridspec(rows, _COLUMNS)
        _scores(figure.add_subplot(grid[0, 0:2]), search)
        _curves(figure.add_subplot(grid[0, 2]), search)
        for place, (field, kind) in enumerate(fields):
            axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
            _panel(axes, search, field, kind)

    return plots.draw_png((11.0, 3.2 + 2.4 * (rows - 1)), paint)


def _scores(axes: "Axes", search: SearchResult) -> None:
    """Draw each trial's score, and the best score so far as steps."""
    from matplotlib.ticker import MaxNLocator

    numbers = [float(trial.number) for trial in search.trials]
    _points(axes, search, numbers, size=5)
    axes.step(numbers, _best_so_far(search.trials), where="post", color=plots.INK, linewidth=1.2, label="best so far")
    _mark(axes, search, numbers)
    title = f"{search.features.dataset}" + " (SYNTHETIC)" * search.features.synthetic
    axes.set_title(f"Trials on {title}")
    axes.set(xlabel="trial", ylabel=_UNIT)
    axes.set_ylim(*_span(search.trials))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Above the panel, right of its title, where it hides no point.
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.975), ncols=5, borderpad=0.2, columnspacing=1.2)


def _curves(axes: "Axes", search: SearchResult) -> None:
    for trial in search.trials:
        epochs = range(1, len(trial.curve) + 1)
        thick = 1.8 if trial.number == search.winner else 0.9
        axes.plot(epochs, trial.curve, color=_COLOURS[trial.state], linewidth=thick, alpha=0.85)
    axes.set_title("Learning curves, first seed")
    axes.set(xlabel="epoch", ylabel=_UNIT)


def _panel(axes: "Axes", search: SearchResult, field: str, kind: Dimension) -> None:
    """Draw scores by a field's values; each choice has its own position."""
    values = [trial.params[field] for trial in search.trials]
    if isinstance(kind, Choice):
        names = list(dict.fromkeys(map(str, [*kind.values, *values])))
        places = [float(names.index(str(value))) for value in values]
        axes.set_xticks(range(len(names)), [plots.short(name) for name in names])
    else:
        places = [float("nan") if isinstance(value, str) else float(value) for value in values]
        if isinstance(kind, LogUniform):
            _powers(axes)
    _points(axes, search, places, size=4.5)
    _mark(axes, search, places)
    axes.set_title(field, fontsize=8.5)
    axes.set_ylabel(_UNIT)
    axes.set_ylim(*_span(search.trials))


def _powers(axes: "Axes") -> None:
    """Scale an axis logarithmically, with plain numbers as labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark(axes: "Axes", search: SearchResult, places: Sequence[float]) -> None:
    """Put a ring around the winner and a diamond on the unchanged config."""
    for number, marker in ((search.winner, "o"), (0, "D")):
        score = search.trials[number].score
        axes.plot(places[number], score, marker=marker, markersize=9, fillstyle="none", color=plots.INK)


def _points(axes: "Axes", search: SearchResult, places: Sequence[float], *, size: float) -> None:
    """Draw each trial's score at its place, in the colour of its state."""
    for state, colour in _COLOURS.items():
        if trials := [trial for trial in search.trials if trial.state == state]:
            at, scores = [places[trial.number] for trial in trials], [trial.score for trial in trials]
            axes.plot(at, scores, linestyle="none", marker="o", markersize=size, color=colour, label=state)


def _best_so_far(trials: Sequence[TrialRecord]) -> list[float]:
    return [max(trial.score for trial in trials[: place + 1]) for place in range(len(trials))]


def _span(trials: Sequence[TrialRecord]) -> tuple[float, float]:
    """Return the axis limits: a diverged trial's 0 must not squeeze the other points together."""
    scores = [trial.score for trial in trials if trial.score] or [0.0, 1.0]
    room = max(0.1 * (max(scores) - min(scores)), 0.01)
    return min(scores) - room, max(scores) + room
