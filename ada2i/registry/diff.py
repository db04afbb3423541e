"""Differences between two versions: config, features, scores, environment."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import JsonValue

from ada2i.errors import DataError
from ada2i.presets import flat
from ada2i.records import Record
from ada2i.registry.references import resolve
from ada2i.registry.versions import Version, read_file

Part = Literal["config", "features", "metrics", "environment"]


class Change(Record):
    """One field in which two versions differ; None if a version lacks it."""

    part: Part
    field: str  # dotted
    first: JsonValue
    second: JsonValue


def diff(root: str, a: str, b: str) -> list[Change]:
    """Return the fields in which two versions differ, by part and then in the order of the first one's fields.

    Args:
        root: The storage root.
        a: The first, as ``MODEL``, ``MODEL@NUMBER`` or ``MODEL@ALIAS``.
        b: The second.

    Raises:
        IntegrityError: A file that is compared differs from its digest.
        NotFoundError: There is no such version.
    """
    first, second = (_parts(root, resolve(root, reference)) for reference in (a, b))
    return [change for part in first for change in _changes(part, first[part], second[part])]


def _parts(root: str, version: Version) -> dict[Part, dict[str, JsonValue]]:
    metrics = {"seed": version.seed, "dev_weighted_f1": version.dev_weighted_f1}
    tests = {name: summary.model_dump(mode="json") for name, summary in version.test_summary.items()}
    parts: dict[Part, Mapping[str, Any]] = {
        "config": _read(root, version, "config.json"),
        "features": version.features.model_dump(mode="json", exclude={"uri"}),
        "metrics": metrics | {"protocol": version.protocol, "test": tests},
        "environment": {"code": version.code, **_read(root, version, "environment.json")},
    }
    return {part: flat(tree) for part, tree in parts.items()}


def _read(root: str, version: Version, name: str) -> dict[str, Any]:
    try:
        found = json.loads(read_file(root, version, name))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{name} of {version.name} must be JSON, but: {problem}.") from problem
    return found if isinstance(found, dict) else {"": found}


def _changes(part: Part, first: dict[str, JsonValue], second: dict[str, JsonValue]) -> Iterator[Change]:
    for field in first | second:
        if (field in first) != (field in second) or first[field] != second[field]:
            yield Change(part=part, field=field, first=first.get(field), second=second.get(field))
