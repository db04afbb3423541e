"""The model card of a version: markdown behind YAML, in the format of the Hugging Face hub.

The same run and number give the same bytes. A card contains no storage locations.
"""

import re
from collections.abc import Mapping
from typing import Any

from ada2i.data.provenance import licence_warning
from ada2i.display import count
from ada2i.records import RunResult, Scores
from ada2i.reports.templates import template

_ENGLISH = frozenset({"iemocap", "meld", "mosei", "mosi"})
_UNDETERMINED = "und"  # ISO 639-2
_METRICS = {"weighted_f1": ("weighted F1", "f1"), "macro_f1": ("macro F1", "f1"), "accuracy": ("accuracy", "accuracy")}
_TITLE = re.compile(r"\A# .*\n")
_HEADING = re.compile(r"^(#+ )", re.MULTILINE)


def render_card(result: RunResult, environment: Mapping[str, Any], scores: str, *, name: str) -> str:
    """Return the model card of a run's best seed.

    Args:
        result: The run.
        environment: The machines and packages of the run: the content of its ``environment.json``.
        scores: Its scores as markdown.
        name: The version, as ``MODEL@NUMBER``.
    """
    return template(__package__, "card.md.j2").render(
        name=name,
        result=result,
        best=result.best,
        language=_language(result.features.dataset),
        metrics=[*_own_metrics(result.best_test.scores, result.best_seed), *_mean_metrics(result)],
        environment=environment,
        licence_note=licence_warning(result.licences),
        code=code_revision(environment),
        scores=_HEADING.sub(r"#\1", _TITLE.sub("", scores)).strip(),  # one level below the card's headings
    )


def code_revision(environment: Mapping[str, Any]) -> str | None:
    """Return the commit that a run was trained with, else the package's version, else None."""
    version = environment.get("packages", {}).get("ada2i")
    return environment.get("code") or (f"ada2i {version}" if version else None)


def _language(dataset: str) -> str:
    words = set(re.split(r"[^a-z0-9]+", dataset.lower()))
    return "en" if words & _ENGLISH else _UNDETERMINED


def _own_metrics(scores: Scores, seed: int) -> list[dict[str, str | float]]:
    return [
        {"type": kind, "name": f"{title} of these weights (seed {seed})", "value": round(getattr(scores, field), 4)}
        for field, (title, kind) in _METRICS.items()
    ]


def _mean_metrics(result: RunResult) -> list[dict[str, str | float]]:
    over = f"mean over {count(len(result.tests), 'seed')}"
    return [
        {"type": kind, "name": f"{title}, {over}", "value": round(result.test_summary[field].mean, 4)}
        for field, (title, kind) in _METRICS.items()
        if len(result.tests) > 1
    ]
