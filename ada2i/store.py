"""Where everything is stored: the root, and the folders of runs and seeds under it.

The root is a folder or an S3 prefix. ``Store`` builds every URI under it; no other module contains the layout.
"""

import os
import re
from dataclasses import dataclass
from typing import Final, Self

from ada2i import storage
from ada2i.errors import ConfigError
from ada2i.records import RUN_ID, RunRequest, RunResult, SeedResult

EXTRACTION: Final = "-extract"
"""End of the id of an extraction that belongs to a run."""

DRIFT_SUMMARY: Final = "summary.json"
"""The file with the last comparison in a version's folder ``Store.drift``."""

DEFAULT_ROOT: Final = "ada2i-store"
"""The root if neither an option nor ``ADA2I_ROOT`` is given."""


@dataclass(frozen=True)
class SeedFolder:
    """The folder of one seed of a run.

    Attributes:
        uri: Its URI.
    """

    uri: str

    @property
    def checkpoints(self) -> str:
        """URI of the folder with this seed's checkpoints."""
        return storage.join(self.uri, "checkpoints")

    @property
    def best(self) -> str:
        """URI of the folder with the weights of this seed's best epoch."""
        return storage.join(self.uri, "best")

    @property
    def result_uri(self) -> str:
        """URI of the record that marks this seed as trained."""
        return storage.join(self.uri, "result.json")

    @property
    def test_uri(self) -> str:
        """URI of the record of this seed's one evaluation on test."""
        return storage.join(self.uri, "test.json")

    def is_trained(self) -> bool:
        """Return whether this seed has a result."""
        return storage.exists(self.result_uri)

    def result(self) -> SeedResult:
        """Read the seed's result; raises as ``Record.load`` does."""
        return SeedResult.load(self.result_uri)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        uri: Its URI.
    """

    uri: str

    @property
    def run_id(self) -> str:
        """The run's id: the last segment of the URI."""
        return storage.name_of(self.uri)

    @property
    def request_uri(self) -> str:
        """URI of the run's request, which is written first."""
        return storage.join(self.uri, "request.json")

    @property
    def environment_uri(self) -> str:
        """URI of the description of the machines and packages that trained the run."""
        return storage.join(self.uri, "environment.json")

    @property
    def result_uri(self) -> str:
        """URI of the run's result, which is written last."""
        return storage.join(self.uri, "result.json")

    @property
    def baselines_uri(self) -> str:
        """URI of the baselines' one evaluation on test."""
        return storage.join(self.uri, "baselines.json")

    def seed(self, seed: int) -> SeedFolder:
        """Return the folder of a seed."""
        return SeedFolder(storage.join(self.uri, f"seed-{seed}"))

    def request(self) -> RunRequest:
        """Read the run's request; raises as ``Record.load`` does."""
        return RunRequest.load(self.request_uri)

    def result(self) -> RunResult:
        """Read the run's result; raises as ``Record.load`` does."""
        return RunResult.load(self.result_uri)

    def is_trained(self) -> bool:
        """Return whether every seed of the run has a result."""
        return all(self.seed(seed).is_trained() for seed in self.request().config.training.seeds)


@dataclass(frozen=True)
class Store:
    """The root.

    Attributes:
        root: Its normalised URI.
    """

    root: str

    @classmethod
    def open(cls, root: str | None = None) -> Self:
        """Return the store at a path or URI; by default at ``ADA2I_ROOT``, else at ``./ada2i-store``.

        Raises:
            InputError: The location is empty, or neither a path nor a ``file`` or ``s3`` URI.
        """
        return cls(storage.normalise(os.environ.get("ADA2I_ROOT", DEFAULT_ROOT) if root is None else root))

    def writable(self) -> Self:
        """Return this store after checking that it can be written; raises as ``storage.check_writable`` does."""
        storage.check_writable(self.root)
        return self

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run. Here and below, an id that is not one path segment raises ``ConfigError``."""
        return RunFolder(self._folder("runs", run_id))

    def unfinished_runs(self) -> list[str]:
        """Return the ids of runs, or of extractions for runs, that have no result; the newest first."""
        runs = storage.children(storage.join(self.root, "runs"))
        extractions = storage.children(storage.join(self.root, "extraction", "runs"))
        ids = {*runs, *(name.removesuffix(EXTRACTION) for name in extractions if name.endswith(EXTRACTION))}
        named = (name for name in sorted(ids, reverse=True) if re.fullmatch(RUN_ID, name))  # not .DS_Store
        return [run_id for run_id in named if not storage.exists(self.run(run_id).result_uri)]

    def extraction(self, run_id: str) -> str:
        """Return the URI of the folder of an extraction."""
        return self._folder("extraction/runs", run_id)

    def search(self, search_id: str) -> str:
        """Return the URI of the folder of a search."""
        return self._folder("searches", search_id)

    def study(self, study_id: str) -> str:
        """Return the URI of the folder of a study."""
        return self._folder("studies", study_id)

    def prediction(self, prediction_id: str) -> str:
        """Return the URI of the folder of a prediction."""
        return self._folder("predictions", prediction_id)

    def turns(self, model: str) -> str:
        """Return the folder that names which flow run trains a model."""
        return self._folder("turns", model)

    def drift(self, model: str, number: int) -> str:
        """Return the folder of what a version's predictions look like."""
        return storage.join(self.drifts(model), str(number))

    def drifts(self, model: str) -> str:
        """Return the folder that holds ``drift`` of all versions of a model."""
        return storage.join(self.root, "drift", model)

    def _folder(self, kind: str, name: str) -> str:
        if not re.fullmatch(RUN_ID, name):
            raise ConfigError(
                f"An id must be 1 to 200 characters without a leading dot, slashes, `%`, `?` and `#`, but is "
                f"{name[:80]!r}. Correct it.",
                field="run",
            )
        return storage.join(self.root, kind, name)
