"""Windows: the sums of one prediction each, kept by version."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from ada2i import storage
from ada2i.drift.reference import home
from ada2i.errors import DataError, IntegrityError
from ada2i.prediction.records import PredictionManifest
from ada2i.records import Instant, ModelName, Number, Record, RunId
from ada2i.registry.versions import Version

log = logging.getLogger(__name__)

Sum = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]


class Window(Record):
    """The sums of a prediction."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: Number
    run_id: RunId
    created: Instant
    source: str
    dialogues: Annotated[int, Field(ge=1, le=10**9)]
    sums: tuple[Sum, ...]  # ``(K,)``, see ``inference.sums.Columns``


def keep(root: str, version: Version, manifest: PredictionManifest) -> None:
    """Store the sums of a prediction; a repeated call changes nothing."""
    window = Window(
        model=version.model,
        version=version.number,
        run_id=manifest.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=manifest.source,
        dialogues=manifest.dialogues,
        sums=manifest.sums,
    )
    storage.put_if_absent(storage.join(home(root, version), "windows", f"{manifest.run_id}.json"), window.stored())


def windows(root: str, version: Version, run_id: str | None = None) -> list[Window]:
    """Return the windows of a version, the oldest first; a damaged one is named in a warning and left out.

    Args:
        root: The storage root.
        version: The version.
        run_id: Only this prediction's; by default all.
    """
    folder = storage.join(home(root, version), "windows")
    wanted = {f"{run_id}.json"} if run_id else set(storage.children(folder))
    found = []
    for name in sorted(wanted & set(storage.children(folder))):
        uri = storage.join(folder, name)
        try:
            window = Window.load(uri)
        except (DataError, IntegrityError) as problem:
            log.warning("%s is left out: %s Delete it.", uri, problem.message)
            continue
        if (window.model, window.version, f"{window.run_id}.json") != (version.model, version.number, name):
            log.warning("%s is left out: it is the window of another prediction. Delete it.", uri)
            continue
        found.append(window)
    return sorted(found, key=lambda window: (window.created, window.run_id))
