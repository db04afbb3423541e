"""Seals: whichever byte of a sealed record changes, it is refused."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ada2i import storage
from ada2i.errors import DataError, IntegrityError
from ada2i.records import EpochRecord, Sealed
from tests.unit.evaluation.runs import build_run


class Note(Sealed):
    text: str
    size: int


@pytest.fixture
def place(tmp_path: Path) -> str:
    return storage.join(tmp_path.as_uri(), "note.json")


def test_the_seal_is_the_digest_of_the_bytes_without_it(place: str) -> None:
    note = Note(text="0" * 64, size=3).sealed()  # text that looks like the blank
    storage.put(place, note.to_json())
    assert Note.load(place) == note
    assert note.seal is not None
    stored = storage.get(place).decode()
    assert json.loads(stored) == {"seal": note.seal, "text": "0" * 64, "size": 3}
    assert hashlib.sha256(stored.replace(note.seal, "0" * 64).encode()).hexdigest() == note.seal


def test_what_is_stored_carries_the_seal(place: str) -> None:
    note = Note(text="a", size=3)
    storage.put(place, note.sealed().stored())
    assert storage.get(place) == note.stored() == note.sealed().to_json()
    assert Note.load(place) == note.sealed()


def test_sealing_again_changes_nothing() -> None:
    note = Note(text="a", size=3).sealed()
    assert note.sealed() == note


def test_every_flipped_byte_is_refused(place: str) -> None:
    data = Note(text="seal \N{SNOWMAN}", size=12345).sealed().to_json()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        storage.put(place, bytes(changed))
        with pytest.raises(DataError, match=r"note\.json must (have the SHA-256|hold a Note)"):
            Note.load(place)


def test_what_is_cut_short_or_longer_is_refused(place: str) -> None:
    data = Note(text="a", size=3).sealed().to_json()
    for changed in (data[:-5], data + b"\n"):
        storage.put(place, changed)
        with pytest.raises(IntegrityError, match="changed or damaged after it was written"):
            Note.load(place)


def test_a_later_schemas_fields_with_defaults_break_no_seal(place: str) -> None:
    class LaterNote(Note):
        colour: str = "none"

    note = Note(text="a", size=3).sealed()
    storage.put(place, note.to_json())
    assert LaterNote.load(place).seal == note.seal


def test_what_is_older_than_seals_loads(place: str) -> None:
    storage.put(place, b'{"text": "a", "size": 3}')
    assert Note.load(place) == Note(text="a", size=3)


def test_an_epoch_may_hold_metrics_that_this_version_does_not_know() -> None:
    known = build_run().seeds[0].history[0]
    record = EpochRecord.model_validate(known.model_dump() | {"entropy": 0.5, "lead": {"text": 0.1, "audio": 0.0}})
    assert EpochRecord.model_validate_json(record.to_json()) == record
    assert record.model_extra == {"entropy": 0.5, "lead": {"text": 0.1, "audio": 0.0}}
    with pytest.raises(ValidationError, match="lead"):
        EpochRecord.model_validate(known.model_dump() | {"lead": {"smell": 0.1}})
