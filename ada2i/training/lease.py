"""The right to write a seed's folder: the newest attempt has it, and older attempts leave.

Two attempts at one run can run at a time, such as a rank that lost contact with its cluster, and its successor.
"""

import os
import socket
from typing import Literal, Self

from ada2i import storage
from ada2i.errors import ConflictError
from ada2i.records import Record


class Attempt(Record):
    """An attempt at training a seed, stored as ``attempts/<number>.json``.

    Attributes:
        number: Counts from 1; written only if absent, so that no two attempts have the same.
        host: Name of its machine.
        process: Id of its process there.
    """

    schema_version: Literal[1] = 1
    number: int
    host: str
    process: int


class Lease:
    """An attempt's right to write a seed's folder, until a newer attempt takes it.

    Attributes:
        number: The attempt's number.
    """

    def __init__(self, uri: str, number: int) -> None:
        self.uri, self.number = uri, number

    @classmethod
    def take(cls, uri: str) -> Self:
        """Take the lease of a seed's folder; all older attempts lose it."""
        number = 1 + max((int(name.split(".")[0]) for name in storage.children(_folder(uri))), default=0)
        while True:
            record = Attempt(number=number, host=socket.gethostname(), process=os.getpid())
            if storage.put_if_absent(_uri(uri, number), record.stored()):
                return cls(uri, number)
            number += 1

    def held(self) -> bool:
        """Return whether no newer attempt has taken the lease."""
        return not storage.exists(_uri(self.uri, self.number + 1))

    def lost(self) -> ConflictError:
        """Return the error with which an attempt leaves that has lost its lease."""
        newer = Attempt.load(_uri(self.uri, self.number + 1))
        return ConflictError(
            f"One attempt at a time may train {self.uri}, but attempt {newer.number} (process {newer.process} on "
            f"{newer.host}) has taken over from attempt {self.number}, which left. Wait for it, or stop it and run "
            "again.",
            uri=self.uri,
        )


def _folder(uri: str) -> str:
    return storage.join(uri, "attempts")


def _uri(uri: str, number: int) -> str:
    return storage.join(_folder(uri), f"{number}.json")
