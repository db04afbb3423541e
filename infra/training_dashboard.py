"""Write Grafana's dashboard of trainings from the table of metrics: ``python -m infra.training_dashboard``."""

import json
from pathlib import Path
from typing import Any

from ada2i.training.metrics import METRICS, TrainingMetric

FILE = Path(__file__).parent / "dashboards" / "training.json"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_OPTIONS = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "none"},
}
_LINES = {"drawStyle": "line", "lineWidth": 1, "showPoints": "auto", "spanNulls": True}


def dashboard(base: dict[str, Any]) -> dict[str, Any]:
    """Return a dashboard with one panel for each metric, three in a row."""
    return base | {"panels": [_panel(number, metric) for number, metric in enumerate(METRICS)]}


def _panel(number: int, metric: TrainingMetric) -> dict[str, Any]:
    legend = "{{run}} seed {{seed}}" + " {{modality}}" * metric.by_modality
    query = {"refId": "A", "datasource": _SOURCE, "legendFormat": legend}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": metric.name.replace("_", " ").capitalize(),
        "description": metric.help,
        "gridPos": {"x": 8 * (number % 3), "y": 8 * (number // 3), "w": 8, "h": 8},
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": metric.unit, "custom": _LINES}, "overrides": []},
        "targets": [query | {"expr": metric.exported + '{run=~"$run", seed=~"$seed"}'}],
        "options": _OPTIONS,
    }


def main() -> None:
    """Write the dashboard's panels; everything else in the file stays."""
    FILE.write_text(json.dumps(dashboard(json.loads(FILE.read_text())), indent=1) + "\n")


if __name__ == "__main__":
    main()
