"""A study's weighted F1 as one plot, in the style of a run's plots."""

from typing import TYPE_CHECKING

from ada2i.reports import plots
from ada2i.studies.rows import Row, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"reference": "#999999", "paper": "#e69f00", "corrected": "#0072b2", "causal": "#009e73"}
_OTHER, _PUBLISHED = "#56b4e9", "#d55e00"
_UNIT = "weighted F1 on test, mean and sample deviation over seeds"
_ROOM = 1.04  # end of the axis relative to the largest number


def study_plot(study: Study) -> bytes:
    """Return a PNG: one bar per row with its deviation over seeds; diamonds mark the paper's numbers."""
    rows = [row for row in study.rows if row.measured]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            _bar(axes, place, row)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
        unit = f"{_UNIT}\n{study.protocol}".rstrip()
        axes.set(xlabel=unit, ylim=(len(rows) - 0.5, -0.5), xlim=(0, _ROOM * _largest(rows)))
        axes.set_title(study.dataset + " (SYNTHETIC)" * study.synthetic)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=plots.INK)
        _diamonds(axes, rows)

    return plots.draw_png((8.0, 1.2 + 0.28 * max(len(rows), 1)), paint)


def _bar(axes: "Axes", place: int, row: Row) -> None:
    assert row.measured is not None
    score = row.measured.weighted_f1
    axes.barh(place, score.mean, height=0.72, color=_COLOURS.get(row.cell.preset, _OTHER))
    if score.sd is not None:
        axes.errorbar(score.mean, place, xerr=score.sd, ecolor=plots.INK, elinewidth=1, capsize=2)


def _diamonds(axes: "Axes", rows: list[Row]) -> None:
    found = [(value, place) for place, row in enumerate(rows) if (value := _printed(row)) is not None]
    if found:
        values, places = zip(*found, strict=True)
        axes.plot(values, places, marker="D", markersize=5, color=_PUBLISHED, linestyle="none", label="published")
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.985))


def _printed(row: Row) -> float | None:
    return row.published.weighted_f1 if row.published else None


def _label(row: Row) -> str:
    assert row.measured is not None
    return f"{row.cell.name}   {row.measured.weighted_f1.mean:.3f}"


def _largest(rows: list[Row]) -> float:
    ends = [row.measured.weighted_f1.mean + (row.measured.weighted_f1.sd or 0) for row in rows if row.measured]
    return max([*ends, *(_printed(row) or 0 for row in rows)], default=1.0)
