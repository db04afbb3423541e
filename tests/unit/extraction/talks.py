"""Small corpora with media, and extractions of them in this process."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ada2i import storage
from ada2i.extraction.corpora import face, voice
from ada2i.extraction.request import ExtractionRequest, ExtractionResult, ExtractSpec, prepare
from ada2i.extraction.run import extract
from ada2i.extraction.work import Worker
from ada2i.jobs.fanout import Call
from ada2i.modalities import Modality
from tests.unit.extraction import own

COLUMNS = ("dialogue_id", "split", "label", "text", "audio", "video", "start", "end")
SPLITS = ("train", "train", "dev", "test")
OWN: dict[Modality, str | None] = {m: f"{own.__name__}:{m.title()}" for m in ("text", "audio", "visual")}

Rows = list[dict[str, Any]]


def tone(seconds: float, hertz: float, level: float = 0.5) -> bytes:
    return voice.encode(level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * voice.RATE)) / voice.RATE))


def film(seed: int, seconds: float = 0.5) -> bytes:
    return face.empty_room(np.random.RandomState(seed), seconds=seconds)


def talk(folder: Path, dialogues: int = 4, *, video: bool = True) -> Rows:
    """Write a corpus of dialogues of two utterances each; return its rows."""
    rows = []
    for number in range(dialogues):
        for turn in range(2):
            name, place = f"d{number}_{turn}", 2 * number + turn
            put(folder, f"audio/{name}.wav", tone(0.3, 200 + place))
            if video:
                put(folder, f"video/{name}.mp4", film(place))
            media = {"audio": f"audio/{name}.wav", "video": f"video/{name}.mp4" if video else ""}
            keys = {"dialogue_id": f"d{number}", "split": SPLITS[number % 4], "label": "ab"[(number + turn) % 2]}
            rows.append({**keys, "text": f"words of {name}", **media, "start": "", "end": ""})
    write_table(folder, rows)
    return rows


def put(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_table(folder: Path, rows: Rows, columns: Sequence[str] = COLUMNS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "utterances.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


class LocalWorkers:
    """One worker, in this process; interrupted after ``after`` tasks that encode."""

    def __init__(self, request: ExtractionRequest, after: int | None = None) -> None:
        self.worker = Worker(request.root, request.config, "cpu")
        self.after = after
        self.reported: list[dict[str, Any]] = []

    def __call__(self, calls: Iterable[Call]) -> Iterator[Any]:
        for method, arguments in reversed(list(calls)):  # in any order
            if method == "encode" and self.after is not None:
                if self.after == 0:
                    raise KeyboardInterrupt
                self.after -= 1
            yield getattr(self.worker, method)(*arguments)

    def report(self, kind: str, **facts: Any) -> None:
        self.reported.append({"kind": kind, **facts})


def prepared(folder: Path, root: Path, run_id: str, overrides: dict[str, Any] | None = None, **encoders: str) -> str:
    spec = ExtractSpec(kind="folder", location=str(folder), encoders=OWN | encoders, overrides=overrides or {})
    return prepare(spec, root=str(root), run_id=run_id).uri


def extracted(
    folder: Path, root: Path, run_id: str = "run", overrides: dict[str, Any] | None = None, **encoders: str
) -> ExtractionResult:
    """Extract a folder corpus with encoders that take no time, unless others are named."""
    uri = prepared(folder, root, run_id, overrides, **encoders)
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    return extract_here(uri, request)


def extract_here(uri: str, request: ExtractionRequest, workers: LocalWorkers | None = None) -> ExtractionResult:
    """Extract in this process."""
    workers = workers or LocalWorkers(request)
    return extract(uri, request, workers, report=workers.report)


def contents(uri: str) -> dict[str, bytes]:
    """Return all files of a folder, by name."""
    return {name: storage.get(storage.join(uri, name)) for name in storage.children(uri)}
