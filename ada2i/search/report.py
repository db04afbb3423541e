"""Reports of a search: markdown, JSON, a plot, tables for terminals, all with the same numbers."""

from rich.table import Table
from rich.text import Text

from ada2i.display import count, table_of
from ada2i.reports.report import SYNTHETIC_NOTE, markdown_table, markdown_text
from ada2i.search.plot import search_plot
from ada2i.search.records import Final, Params, SearchOutcome, SearchResult, TrialRecord

Line = dict[str, str | float]

_SHOWN = 10  # trials shown in a terminal; files have all


def search_files(outcome: SearchOutcome) -> dict[str, bytes]:
    """Return ``table.md``, ``table.json`` and ``plot.png``, by name."""
    return {
        "table.json": outcome.to_json(),
        "plot.png": search_plot(outcome.search),
        "table.md": search_markdown(outcome).encode(),
    }


def search_markdown(outcome: SearchOutcome) -> str:
    """Return all tables and notes as markdown, with a link to the plot."""
    search, test = outcome.search, outcome.test_summary["weighted_f1"]
    tested = (
        f"The winner's weighted F1 on test, by which nothing was chosen: {test.text}. Registered as {outcome.version}."
    )
    blocks = [
        f"# {markdown_text(title(search))}",
        "![Dev weighted F1 by trial, learning curves, and scores by field](plot.png)",
        "## Finals: trained again on seeds that no trial had, dev weighted F1",
        markdown_table(final_lines(search)),
        markdown_text(tested),
        "## Trials, best first, dev weighted F1",
        markdown_table(trial_lines(search)),
        "## Varied",
        markdown_table([{"field": field, "from": str(kind)} for field, kind in search.space.fields.items()]),
        "\n".join(f"- {markdown_text(note)}" for note in notes(search)),
    ]
    return "\n\n".join(blocks) + "\n"


def terminal_search(search: SearchResult) -> list[Table | Text]:
    """Return tables to print: the finals and the best trials."""
    trials = trial_lines(search)[:_SHOWN]
    of = f", {len(trials)} of {len(search.trials)}" if len(trials) < len(search.trials) else ""
    return [
        Text(title(search), "bold"),
        table_of("Finals, dev wF1", final_lines(search)),
        table_of(f"Trials, best first{of}, dev wF1", trials),
        *(Text(note, "dim") for note in notes(search)),
    ]


def title(search: SearchResult) -> str:
    """Return the title of a search."""
    synthetic = " (SYNTHETIC)" * search.features.synthetic
    return f"Search {search.search_id} on {search.features.dataset}{synthetic}, preset {search.config.preset}"


def notes(search: SearchResult) -> list[str]:
    """Return notes on how to read the tables."""
    found = [SYNTHETIC_NOTE] if search.features.synthetic else []
    states = [trial.state for trial in search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return [
        *found,
        f"{count(len(search.trials), 'trial')}: {counts}. Trial 0 is the unchanged config, and competes in the finals.",
        "A trial's score is the best of many, so it is too high. The finals use new seeds, but the same dev "
        "dialogues: only test shows how good the winner is on other data.",
        *(f"Trial {trial.number}: {trial.problem}" for trial in search.trials if trial.problem),
    ]


def final_lines(search: SearchResult) -> list[Line]:
    """Return a line per final."""
    return [_final(final, search) for final in search.finals]


def trial_lines(search: SearchResult) -> list[Line]:
    """Return a line per trial, the best first; complete trials before the others."""
    ranked = sorted(search.trials, key=lambda trial: (trial.state != "complete", -trial.score, trial.number))
    return [_trial(trial) for trial in ranked]


def _final(final: Final, search: SearchResult) -> Line:
    score = final.dev_weighted_f1
    return {
        "trial": _name(final.trial),
        "mean": f"{score.mean:.4f}" if score else final.problem,
        "sd": f"{score.sd:.4f}" if score and score.sd is not None else "-",
        "seeds": " ".join(f"{value:.4f}" for value in score.values) if score else "-",
        "": "winner" if final.trial == search.winner else "",
        **_params(final.params),
    }


def _trial(trial: TrialRecord) -> Line:
    return {
        "trial": _name(trial.number),
        "state": trial.state,
        "epochs": str(len(trial.curve)),
        "score": f"{trial.score:.4f}",
        **_params(trial.params),
    }


def _name(number: int) -> str:
    return str(number) if number else "0, as it was"


def _params(params: Params) -> Line:
    """Return params by the last parts of their field names, as many as make them distinct."""
    return {_short(field, params): _value(value) for field, value in params.items()}


def _short(field: str, params: Params) -> str:
    words = field.split(".")
    alike = sum(other.endswith(f".{words[-1]}") for other in params)
    return ".".join(words[-2:]) if alike > 1 else words[-1]


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
