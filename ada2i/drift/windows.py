"""Windows: the sums of one prediction each, kept by version."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from ada2i import storage
from ada2i.drift.reference import home
from ada2i.prediction.records import PredictionManifest
from ada2i.records import Instant, Record, RunId
from ada2i.registry.versions import Version


class Window(Record):
    """The sums of a prediction."""

    schema_version: Literal[1] = 1
    run_id: RunId
    created: Instant
    source: str
    dialogues: int
    sums: tuple[float, ...]  # ``(K,)``, see ``inference.sums.Columns``


def keep(root: str, version: Version, manifest: PredictionManifest) -> None:
    """Store the sums of a prediction; a repeated call changes nothing."""
    window = Window(
        run_id=manifest.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=manifest.source,
        dialogues=manifest.dialogues,
        sums=manifest.sums,
    )
    storage.put_if_absent(storage.join(home(root, version), "windows", f"{manifest.run_id}.json"), window.stored())


def windows(root: str, version: Version) -> Iterator[Window]:
    """Return the windows of a version, the oldest first."""
    folder = storage.join(home(root, version), "windows")
    found = (Window.load(storage.join(folder, name)) for name in storage.children(folder) if name.endswith(".json"))
    yield from sorted(found, key=lambda window: (window.created, window.run_id))
