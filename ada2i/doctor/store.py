"""Checks the storage root: access, consistency, and agreement of the clocks."""

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ada2i import storage
from ada2i.doctor.check import Check, fail, ok
from ada2i.doctor.clock import check_clock
from ada2i.doctor.machine import check_room
from ada2i.errors import Ada2iError

_RACERS: Final = 8
_ROUNDS: Final = 3
_GIB: Final = 2**30


def check_store(root: str) -> Iterator[Check]:
    """Check the storage root, and leave it unchanged.

    Args:
        root: A folder, or ``s3://bucket/prefix``.
    """
    try:
        home = _home(storage.normalise(root))
        if isinstance(home, Path):
            yield check_room("room for the root", home, least=_GIB // 4, enough=2 * _GIB)
            probe = storage.join(home.as_uri(), f".doctor-{uuid.uuid4().hex}")
        else:
            yield (clock := check_clock("S3 clock", _endpoint()))
            if clock.status == "fail":
                return  # each further check would wait for a timeout
            probe = storage.join(home, f".doctor-{uuid.uuid4().hex}")
        try:
            yield _used(probe, root)
            yield _conditional(probe)
        finally:
            storage.delete_folder(probe)
    except Ada2iError as problem:
        what, _, todo = problem.message.partition(". ")
        yield fail("storage", what, todo)


def _home(root: str) -> Path | str:
    """Return where to probe: an S3 root itself, or the parent of a local one, which may not exist yet."""
    path = storage.local_path(root)
    if path is None:
        return root
    storage.check_writable(root)
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _endpoint() -> str:
    region = os.environ.get("AWS_REGION", "us-east-1")
    usual = os.environ.get("AWS_ENDPOINT_URL", f"https://s3.{region}.amazonaws.com")
    return os.environ.get("AWS_ENDPOINT_URL_S3", usual)


def _used(probe: str, root: str) -> Check:
    """Write, replace, read, list and delete an object."""
    begun, place = time.monotonic(), storage.join(probe, "object")
    storage.put(place, b"first")
    storage.put(place, b"second")
    read, listed = storage.get(place), storage.children(probe)
    storage.delete(place)
    gone = not storage.exists(place)
    if read != b"second" or listed != ["object"] or not gone:
        return fail(
            "storage",
            f"{storage.public(root)}: reads or listings do not show the last write or deletion",
            "Use a store that is consistent after every write, as S3 is; put no cache in front of it.",
        )
    seconds = time.monotonic() - begun
    return ok("storage", f"{storage.public(root)}: written, read, listed and deleted in {seconds:.2f} s")


def _conditional(probe: str) -> Check:
    """Let several writers create one object concurrently: exactly one may succeed, and its bytes must stay."""
    for turn in range(_ROUNDS):
        place = storage.join(probe, f"race-{turn}")

        def create(number: int, place: str = place) -> bool:
            return storage.put_if_absent(place, str(number).encode())

        with ThreadPoolExecutor(max_workers=_RACERS) as pool:
            won = [number for number, first in enumerate(pool.map(create, range(_RACERS))) if first]
        again = storage.put_if_absent(place, b"late")
        kept = storage.get(place).decode()
        holder = "the later one" if kept == "late" else f"writer {kept}"
        if again or kept == "late" or won != [int(kept)]:
            return fail(
                "conditional writes",
                f"exactly one of {_RACERS} concurrent writers of one object must succeed, and its bytes must stay, but "
                f"{len(won)} succeeded ({', '.join(map(str, won)) or 'none'}), the bytes of {holder} "
                f"stayed, and a later writer {'succeeded' if again else 'was refused'}",
                "Use a store with conditional writes (`If-None-Match: *`), such as S3, a later version of your server, "
                "or a local folder: without them two registrations can become one version.",
            )
    return ok("conditional writes", f"one of {_RACERS} writers wins, {_ROUNDS} times of {_ROUNDS}")
