"""Versions as runs of MLflow, in an SQLite file that ``mlflow ui --backend-store-uri`` shows; no server is needed."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ada2i.errors import ConfigError
from ada2i.tracking.tracked import Tracked

_VERSION, _COMPLETE = "ada2i.version", "ada2i.complete"
_METRICS, _PARAMS = 1000, 100  # most of one request
_LONGEST = 5000  # characters of a tag


class MlflowTracker:
    """Writes runs to a store.

    Args:
        to: ``sqlite:///FILE``, or a folder, which gets ``mlflow.db``; artifacts lie in ``mlartifacts`` next to it.

    Raises:
        ConfigError: It is neither.
    """

    def __init__(self, to: str) -> None:
        os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"})
        scheme, colon, path = to.partition("://")
        if colon and (scheme != "sqlite" or not path.strip("/")):
            raise ConfigError(
                f"`--to` must be a folder or sqlite:///FILE, but is {to[:200]!r}. Name one of these.", field="to"
            )
        file = Path(path[1:] if colon else Path(to) / "mlflow.db").absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        self.client: MlflowClient = MlflowClient(tracking_uri=f"sqlite:///{file}")
        self.artifacts = (file.parent / "mlartifacts").as_uri()

    def add(self, version: Tracked) -> bool:
        """Write a version unless the store has it, and bring its tags up to date; return whether it was written."""
        experiment = self._experiment(version.model)
        tags = {f"ada2i.{name}": value[:_LONGEST] for name, value in version.tags.items()}
        for run in self.client.search_runs([experiment], f"tags.`{_VERSION}` = '{version.name}'"):
            if run.data.tags.get(_COMPLETE) == version.tags["run"]:
                for name in (name for name in tags if run.data.tags.get(name, "") != tags[name]):
                    self.client.set_tag(run.info.run_id, name, tags[name])
                return False
            self.client.delete_run(run.info.run_id)  # of an export that was killed, or of another root
        self._write(experiment, version, tags)
        return True

    def _experiment(self, model: str) -> str:
        found = self.client.get_experiment_by_name(model)
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(model, artifact_location=f"{self.artifacts}/{model}"))

    def _write(self, experiment: str, version: Tracked, tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        end = int(version.ended * 1000)
        start = end - int(version.seconds * 1000)
        run = self.client.create_run(experiment, start_time=start, tags=dict(tags), run_name=version.name).info.run_id
        params = [Param(name, value) for name, value in version.params.items()]
        for some in _parts(params, _PARAMS):
            self.client.log_batch(run, params=some)
        for some in _parts(list(_metrics(version, end)), _METRICS):
            self.client.log_batch(run, metrics=some)
        with tempfile.TemporaryDirectory() as folder:
            for name, data in version.files.items():
                (Path(folder) / name).write_bytes(data)
            self.client.log_artifacts(run, folder)
        self.client.set_terminated(run, end_time=end)
        # A crash before this tag leaves a run that the next export replaces.
        self.client.set_tag(run, _COMPLETE, version.tags["run"])


def _metrics(version: Tracked, time: int) -> Iterator[Any]:
    from mlflow.entities import Metric

    for epoch, values in version.epochs.items():
        yield from (Metric(name, value, time, epoch) for name, value in values.items())
    yield from (Metric(name, value, time, 0) for name, value in version.summary.items())


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
