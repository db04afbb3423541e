"""A comparison as one page, in the style of the reports: windows, statistics, plots, protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ada2i.display import count
from ada2i.drift.detect import PROTOCOL, Drift
from ada2i.drift.reference import Reference
from ada2i.drift.windows import Window
from ada2i.registry.versions import Version
from ada2i.reports import plots
from ada2i.reports.report import SYNTHETIC_NOTE
from ada2i.reports.templates import template

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, str]
Judged = Sequence[tuple[Window, Drift]]

_BARS = 15  # statistics on the plot of the last window
_COLOURS = {
    "psi": "#0072b2",
    "shift": "#d55e00",
    "label": "#009e73",
    "confidence": "#cc79a7",
    "missing": "#e69f00",
    "value": "#56b4e9",
}


def render(version: Version, reference: Reference, judged: Judged, left_out: Sequence[str]) -> str:
    """Return one HTML page that loads nothing and runs no script.

    Args:
        version: The version.
        reference: What it was trained on.
        judged: Its windows with their comparisons, the oldest first.
        left_out: Why windows were left out, a message each.
    """
    window, result = judged[-1]
    drifted = sum(one.drifted for _, one in judged)
    worst = result.statistics[0].name if result.drifted else "none"
    return template(__package__, "drift.html.j2").render(
        title=f"Drift of {version.name}",
        place=f"Last window: {window.source}, {_when(window)}, {count(window.dialogues, 'dialogue')}",
        synthetic_note=SYNTHETIC_NOTE if version.features.synthetic else "",
        refused=result.drifted,
        verdict=_verdict(result, version),
        headlines=[("Windows", str(len(judged))), ("Of these above a limit", str(drifted)), ("Farthest", worst)],
        windows=[_window(*each) for each in judged],
        plots=[
            (_over_time(judged), "The largest statistic of each kind in each window, as a share of its limit."),
            (_last(result), "The last window's statistics closest to their limits, as a share of it."),
        ],
        statistics=[
            {
                "statistic": one.name,
                "value": f"{one.value:.4f}",
                "usual": f"{one.usual:.4f}",
                "limit": f"{one.limit:.4f}",
            }
            for one in result.statistics
        ],
        protocol=_protocol(version, reference),
        left_out=left_out,
    )


def _verdict(result: Drift, version: Version) -> str:
    above = [one.name for one in result.statistics if one.exceeds]
    if not above:
        return f"no statistic of the last window is above its limit: it looks like what {version.name} was trained on"
    return f"{count(len(above), 'statistic')} of the last window above the limit: {', '.join(above)}"


def _window(window: Window, result: Drift) -> Row:
    above = [one.name for one in result.statistics if one.exceeds]
    more = f" and {len(above) - 3} more" * (len(above) > 3)
    return {
        "stored": _when(window),
        "source": window.source,
        "dialogues": f"{window.dialogues:,}",
        "above their limit": ", ".join(above[:3]) + more or "none",
    }


def _when(window: Window) -> str:
    return window.created[:16].replace("T", " ") + " UTC"


def _protocol(version: Version, reference: Reference) -> list[str]:
    columns = ", ".join(f"{groups} of {modality}" for modality, groups in reference.columns.groups.items())
    return [
        f"{version.name} was registered at {version.created} and trained on {version.features.dataset}, preset "
        f"{version.preset}. Vectors and missing modalities are compared with {reference.train[0]:,.0f} utterances of "
        f"its training split, answers with {count(len(reference.dev), 'dialogue')} of its dev split.",
        f"Groups of columns: {columns}.",
        PROTOCOL,
    ]


def _over_time(judged: Judged) -> str:
    """Draw the ratios of all windows, a line for each kind of statistic."""

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes, places = figure.subplots(), range(1, len(judged) + 1)
        for kind in judged[-1][1].ratios:
            ratios = [result.ratios[kind] for _, result in judged]
            axes.plot(places, ratios, color=_COLOURS[kind], label=kind, linewidth=1.4, marker="o", markersize=3)
        axes.axhline(1, color=plots.INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        axes.set(xlabel="window, the oldest first", ylabel="share of the limit")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.985), ncols=3, borderpad=0.2, handlelength=1.2)

    return plots.draw("drift-windows", "Largest statistic of each kind by window", (plots.HALF, 3.6), paint)


def _last(result: Drift) -> str:
    """Draw the farthest statistics of a window as bars."""
    shown = result.statistics[:_BARS]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(range(len(shown)), [one.value / one.limit for one in shown], color=[_COLOURS[s.kind] for s in shown])
        axes.set_yticks(range(len(shown)), [one.name for one in shown])
        axes.axvline(1, color=plots.INK, linewidth=1, linestyle=(0, (5, 3)))
        axes.set(xlabel="share of the limit", ylim=(len(shown) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=plots.INK)

    return plots.draw("drift-last", "Statistics of the last window", (plots.HALF, 3.6), paint)
