"""Records that carry the digest of their own stored bytes.

A version's files have their digests in its manifest; what has no object above it, such as the manifest itself, is
sealed instead: one changed byte, and it is refused.
"""

from typing import Self

from pydantic import ValidationError

from ada2i import storage
from ada2i.errors import IntegrityError
from ada2i.records import Record

_BLANK = "0" * 64


class Sealed(Record):
    """Base of sealed records.

    Attributes:
        seal: SHA-256 of the stored bytes with 64 zeros in this place; none in what is older than seals.
    """

    seal: str | None = None  # the first field, so that its value is the first in the stored bytes, too

    def sealed(self) -> Self:
        """Return the record with its seal."""
        blank = self.model_copy(update={"seal": _BLANK})
        return self.model_copy(update={"seal": storage.digest(blank.to_json())})

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read a record.

        Raises:
            NotFoundError: There is none.
            DataError: It is damaged, or of another schema version.
            IntegrityError: Its bytes are not those that were sealed.
        """
        return cls.opened(storage.get(uri), uri)

    @classmethod
    def opened(cls, data: bytes, uri: str) -> Self:
        """Return the record that was read from a URI; raises as ``load`` does."""
        try:
            record = cls.model_validate_json(data)
        except ValidationError:
            return super().load(uri)  # which says what is wrong
        # Bytes, not fields: those that a later version of the schema adds are in no stored bytes.
        if record.seal is not None and storage.digest(data.replace(record.seal.encode(), _BLANK.encode(), 1)) != (
            record.seal
        ):
            raise IntegrityError(
                f"{uri} must have the SHA-256 that it carries as its seal, {record.seal[:16]}..., but has another. It "
                "was changed or damaged after it was written: restore it.",
                uri=uri,
            )
        return record
