"""Windows: the sums of one prediction, or of what a replica of the endpoint answered; kept by version."""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from ada2i import storage
from ada2i.drift.detect import Drift
from ada2i.drift.reference import home
from ada2i.errors import Ada2iError, DataError, IntegrityError, NotFoundError
from ada2i.inference.sums import Floats
from ada2i.prediction.records import PredictionManifest
from ada2i.records import DriftSummary, Instant, ModelName, Number, Record, RunId
from ada2i.registry.versions import Version
from ada2i.store import DRIFT_SUMMARY, Store

log = logging.getLogger(__name__)

LIVE: Final = "live-"
"""Start of the id of an endpoint's window; the ids sort by time. A prediction's id is hexadecimal."""

PAGE: Final = "report.html"
"""The file with the page about the last comparison in the folder of a version's drift."""

_LIVE_KEPT = 24  # windows of endpoints, by version

Sum = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]


class Window(Record):
    """The sums of some dialogues that a version predicted."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: Number
    run_id: RunId
    created: Instant
    source: str
    dialogues: Annotated[int, Field(ge=1, le=10**9)]
    sums: tuple[Sum, ...]  # ``(K,)``, see ``inference.sums.Columns``

    @classmethod
    def of_prediction(cls, manifest: PredictionManifest) -> Self:
        """Return the window of a prediction, which has sums."""
        return cls(
            model=manifest.model,
            version=manifest.version,
            run_id=manifest.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=manifest.source,
            dialogues=manifest.dialogues,
            sums=manifest.sums,
        )

    @classmethod
    def of_endpoint(cls, model: str, number: int, dialogues: int, sums: Floats) -> Self:
        """Return the window of dialogues that an endpoint answered, with ``(K,)`` sums."""
        now = datetime.now(UTC)
        return cls(
            model=model,
            version=number,
            run_id=f"{LIVE}{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
            created=now.isoformat(timespec="seconds"),
            source="live requests",
            dialogues=dialogues,
            sums=tuple(sums.tolist()),
        )


def keep(root: str, window: Window) -> None:
    """Store a window; a repeated call changes nothing. Of an endpoint's windows, the newest 24 are kept."""
    folder = _folder(root, window.model, window.version)
    storage.put_if_absent(storage.join(folder, f"{window.run_id}.json"), window.stored())
    if window.run_id.startswith(LIVE):
        _delete_old(folder)


def _delete_old(folder: str) -> None:
    """Delete an endpoint's oldest windows; if that fails, the next one tries again."""
    try:
        live = sorted(name for name in storage.children(folder) if name.startswith(LIVE))
        storage.delete(*(storage.join(folder, name) for name in live[:-_LIVE_KEPT]))
    except Ada2iError as problem:
        log.warning("Old drift windows are not deleted: %s", problem.message)


def summarise(root: str, window: Window, result: Drift, page: str) -> None:
    """Store a window's comparison as the last one of its version, and the page about it."""
    folder = Store.open(root).drift(window.model, window.version)
    storage.put(storage.join(folder, PAGE), page.encode())
    summary = DriftSummary(
        model=window.model,
        version=window.version,
        run_id=window.run_id,
        created=window.created,
        ratios=result.ratios,
    )
    storage.put(storage.join(folder, DRIFT_SUMMARY), summary.stored())


def last_compared(root: str, version: Version) -> str | None:
    """Return the id of the window that was compared last; None if there is none, or its record is damaged."""
    with suppress(NotFoundError, DataError):
        return DriftSummary.load(storage.join(home(root, version), DRIFT_SUMMARY)).run_id
    return None


def _folder(root: str, model: str, number: int) -> str:
    return storage.join(Store.open(root).drift(model, number), "windows")


def windows(root: str, version: Version, leave_out: Callable[[str], None] = log.warning) -> list[Window]:
    """Return the windows of a version, the oldest first, without damaged ones.

    Args:
        root: The storage root.
        version: The version.
        leave_out: Gets a message about each damaged window.
    """
    folder = _folder(root, version.model, version.number)
    found = []
    for name in sorted(storage.children(folder)):
        uri = storage.join(folder, name)
        try:
            window = Window.load(uri)
        except NotFoundError:  # an endpoint has deleted it meanwhile
            continue
        except (DataError, IntegrityError) as problem:
            leave_out(f"{uri} is left out: {problem.message} Delete it.")
            continue
        if (window.model, window.version, f"{window.run_id}.json") != (version.model, version.number, name):
            leave_out(f"{uri} is left out: it is the window of another prediction. Delete it.")
            continue
        found.append(window)
    return sorted(found, key=lambda window: (window.created, window.run_id))
