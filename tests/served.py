"""Two versions that read texts and sound, and what `predict` says about calls; for tests of the endpoint."""

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ada2i import storage, usecases
from ada2i.data import schema
from ada2i.data.manifest import open_features
from ada2i.extraction.request import ExtractSpec
from ada2i.prediction.request import PredictSpec
from ada2i.registry.aliases import CHAMPION, move
from ada2i.store import Store
from tests.calls import write_calls
from tests.unit.prediction.tiny import registered

MODEL = "tiny"
PRESETS = ("corrected", "paper")  # of versions 1 and 2


class Calls:
    """Calls, their features, and two versions that are trained on nothing.

    Attributes:
        root: The storage root; version 1 is champion.
        folder: The folder corpus of the calls.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, store = write_calls(folder / "calls"), Store.open(str(folder / "store"))
        self.root = store.root
        spec = ExtractSpec(kind="folder", location=str(self.folder), encoders={"visual": "none"}, local=True)
        self.features = usecases.extract(spec, store, run_id="calls", hooks=usecases.Hooks()).features
        for preset in PRESETS:
            registered(self.root, open_features(self.features).info(), preset, model__modalities=["text", "audio"])
        self.promote(1)

    def promote(self, number: int, before: int | None = None) -> None:
        """Move the alias."""
        move(self.root, MODEL, CHAMPION, number, expected=before, by="test", reason="test")

    def predicted(self, number: int, source: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Return what `predict` says about each call, by dialogue; by default about the features."""
        spec = PredictSpec(version=f"{MODEL}@{number}", source=source or self.features, local=True)
        place, manifest = usecases.predict(
            spec, Store.open(self.root), hooks=usecases.Hooks(), extraction_run=f"raw-{number}"
        )
        parts = [storage.get(storage.join(place, name)) for name in sorted(manifest.files)]
        return _by_dialogue(pa.concat_tables([pq.read_table(pa.BufferReader(part)) for part in parts]))

    def raw(self) -> str:
        """Return the calls as a source of recordings."""
        return f"corpus:folder:{self.folder}"

    def vectors(self) -> dict[str, list[dict[str, Any]]]:
        """Return a request's turns for each call, with features."""
        found = open_features(self.features)
        shards = [storage.get(storage.join(found.uri, shard.name)) for shard in found.manifest.shards]
        calls = _by_dialogue(pa.concat_tables([pq.read_table(pa.BufferReader(data)) for data in shards]))
        names = {modality: schema.vector_column(modality) for modality in found.manifest.modalities}
        return {
            call: [{"speaker": r["speaker"], "features": {m: r[name] for m, name in names.items()}} for r in rows]
            for call, rows in calls.items()
        }

    def recordings(self, *, clips: bool) -> dict[str, list[dict[str, Any]]]:
        """Return a request's turns for each call, with texts, and clips if wanted."""
        rows = _by_dialogue(pa.concat_tables([_table(self.folder / "utterances.csv")]))
        return {
            call: [
                {"speaker": r["speaker"], "text": r["text"]}
                | ({"clip": base64.b64encode((self.folder / r["audio"]).read_bytes()).decode()} if clips else {})
                for r in turns
            ]
            for call, turns in rows.items()
        }


def _table(path: Path) -> pa.Table:
    from pyarrow import csv

    return csv.read_csv(path)


def _by_dialogue(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["dialogue_id"], []).append(row)
    return found


def differs(answers: list[dict[str, Any]], rows: list[dict[str, Any]]) -> float:
    """Return by how much answers differ from rows of a prediction; infinity if a label does."""
    if [a["label"] for a in answers] != [row["label"] for row in rows]:
        return float("inf")
    pairs = [(float(a[name]), float(row[name])) for a, row in zip(answers, rows, strict=True) for name in _numbers(a)]
    return max(abs(a - row) / max(1.0, abs(row)) for a, row in pairs)


def _numbers(answer: dict[str, Any]) -> list[str]:
    return [name for name, value in answer.items() if isinstance(value, float)]
