"""Dashboards and code agree: every metric that a panel queries is exported, and every exported one is on a panel."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ada2i.extraction import job as extraction
from ada2i.jobs.metrics import Metric
from ada2i.prediction import job as prediction
from ada2i.records import EpochRecord
from ada2i.registry import metrics as registry
from ada2i.serving.metrics import Metrics
from ada2i.training import metrics as training
from infra import training_dashboard

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "dashboards"
EXPORTED: dict[str, tuple[Metric, ...]] = {
    "training": training.METRICS,
    "extraction": extraction.METRICS,
    "prediction": prediction.METRICS,
    "registry": registry.METRICS,
}


def dashboard(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def of_endpoint() -> dict[str, set[str]]:
    """Return the labels of each sample that the endpoint exports after its first request, by name."""
    made = Metrics()
    made.observe("/predict", 200, 0.1)
    made.answered(1)
    made.windows({"stored": 1})
    families = text_string_to_metric_families(made.text(sessions=1, version="tiny@1").decode())
    found: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries(board: Any) -> list[str]:
    variables = [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return variables + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def names(text: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", text))


def test_there_is_one_for_each_kind_of_job() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {*EXPORTED, "serving"}


def test_the_endpoint_s_dashboard_shows_what_it_exports() -> None:
    exported, shown = of_endpoint(), set[str]()
    for target in (target for panel in dashboard("serving")["panels"] for target in panel["targets"]):
        used = set(re.findall(r"\bada2i_serving_\w+", target["expr"]))
        assert used <= exported.keys()
        labels = set.intersection(*(exported[name] for name in used))
        by = {label for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
        chosen = set(re.findall(r'(\w+)="', target["expr"]))
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert by | chosen | legend <= labels, target["expr"]
        shown |= used
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exported}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown} == families


@pytest.mark.parametrize("name", EXPORTED)
def test_metrics_are_those_that_are_exported(name: str) -> None:
    board = dashboard(name)
    shown = {metric for panel in board["panels"] for target in panel["targets"] for metric in names(target["expr"])}
    exported = {metric.exported for metric in EXPORTED[name]}
    assert shown == exported
    assert {metric for query in queries(board) for metric in names(query)} == exported


@pytest.mark.parametrize("name", EXPORTED)
def test_labels_are_those_that_are_exported(name: str) -> None:
    tags = {metric.exported: set(metric.tags) for metric in EXPORTED[name]}
    board = dashboard(name)
    for query in queries(board):
        for metric, selector in re.findall(r"(ray_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)=~", selector)) <= tags[metric], query
    for target in (target for panel in board["panels"] for target in panel["targets"]):
        known = set.intersection(*(tags[metric] for metric in names(target["expr"])))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, target["expr"]


@pytest.mark.parametrize("name", [*EXPORTED, "serving"])
def test_panels_have_a_place_a_source_and_words(name: str) -> None:
    board = dashboard(name)
    assert board["schemaVersion"] >= 39
    assert board["uid"] == f"ada2i-{name}"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 4)}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_names_are_unique() -> None:
    every = [metric.name for metrics in EXPORTED.values() for metric in metrics]
    assert len(set(every)) == len(every)


def test_training_exports_what_an_epoch_measures() -> None:
    fields = set(EpochRecord.model_fields) - {"step"}
    assert {metric.name for metric in training.METRICS} >= fields  # any other metric is an extra field of the record


def test_the_training_dashboard_is_that_of_the_table() -> None:
    stored = dashboard("training")
    assert training_dashboard.dashboard(stored) == stored, "run `python -m infra.training_dashboard`"
