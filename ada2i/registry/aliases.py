"""Names that move from version to version, such as ``champion``, each with its whole history.

`<root>/registry/<model>/aliases/<alias>/<n>.json` is the alias's n-th move, written only if absent. If several
processes saw move n - 1 as the newest and want to move the alias, exactly one succeeds: compare-and-swap. The newest
move decides which version has the alias; each move carries the seal of the move before it.
"""

import re
import uuid
from datetime import UTC, datetime
from typing import Literal, NoReturn

from ada2i import storage
from ada2i.errors import ConfigError, ConflictError, IntegrityError, NotFoundError
from ada2i.records import Alias, Instant, ModelName, Number, Sealed
from ada2i.registry import retention
from ada2i.registry.paths import home_uri, sequence
from ada2i.registry.versions import check_model_name, find, version_uri

CHAMPION, CHALLENGER = "champion", "challenger"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # never a number, which names a version


MARK = b"{}\n"
MARKS = "moves"
"""Folder in a version's folder with a mark for each move that gave it an alias."""


class Move(Sealed):
    """One move of an alias."""

    schema_version: Literal[1] = 1
    model: ModelName
    alias: Alias
    n: Number  # counted from 1
    kind: Literal["promote", "rollback"]
    number: Number  # of the version that gets the alias
    before: Number | None  # of the version that had it before
    follows: str | None  # seal of the move before
    at: Instant
    by: str
    reason: str
    token: str  # lets a writer recognise its own move


def is_alias(name: str) -> bool:
    """Return whether a name is one that an alias can have."""
    return _NAME.fullmatch(name) is not None


def check_alias(alias: str) -> None:
    """Refuse a name that is not a safe folder name, or could be a number.

    Raises:
        ConfigError: The name has other characters than lower-case letters, digits, `-` and `_`, does not begin with a
            letter, or is too long.
    """
    if not is_alias(alias):
        raise ConfigError(
            "An alias must be lower-case letters, digits, `-` and `_`, at most 63 characters, a letter first, but is "
            f"{alias[:80]!r}. Use for example `{CHAMPION}` or `{CHALLENGER}`.",
            field="alias",
        )


def aliases(root: str, model: str) -> dict[str, Move]:
    """Return the current move of each alias of a model, by alias."""
    names = storage.children(storage.join(home_uri(root, model), "aliases"))
    moves = {name: current(root, model, name) for name in names if is_alias(name)}
    return {name: move for name, move in moves.items() if move is not None}


def current(root: str, model: str, alias: str) -> Move | None:
    """Return the newest move of an alias, or None if it was never set.

    Raises:
        IntegrityError: The move is damaged, or one before it is missing.
    """
    places = list(_places(root, model, alias).items())
    return _load(*places[-1], model, alias, len(places)) if places else None


def history(root: str, model: str, alias: str) -> list[Move]:
    """Return all moves of an alias, oldest first.

    Raises:
        IntegrityError: A move is damaged or missing.
    """
    moves: list[Move] = []
    for n, (place, stamp) in enumerate(_places(root, model, alias).items(), start=1):
        move = _load(place, stamp, model, alias, n)
        if move.follows != (moves[-1].seal if moves else None):
            raise IntegrityError(
                f"{place} must carry the seal of the move before it, but that move has another seal. One of the "
                "two was replaced after it was written: restore it.",
                uri=place,
            )
        moves.append(move)
    return moves


def move(root: str, model: str, alias: str, number: int, *, expected: int | None, by: str, reason: str) -> Move:
    """Give an alias to a version, unless another process has moved it in the meantime.

    If the version has the alias already, nothing changes, so the call can be repeated after a crash.

    Args:
        root: The storage root.
        model: The model's name.
        alias: The alias's name.
        number: The version that gets the alias.
        expected: The version that must have the alias now; None: no version.
        by: Who moves it.
        reason: Why.

    Returns:
        The new move, or the earlier one by which this version already has the alias.

    Raises:
        ConflictError: Another version than the expected one has the alias; nothing was written.
        NotFoundError: There is no such version, or it is being deleted.
        ConfigError: The model's or alias's name is wrong.
    """
    _check_names(model, alias)
    last = current(root, model, alias)
    if last is not None and last.number == number and expected in (number, last.before):
        return last
    if (last.number if last else None) != expected:
        _refuse_move(model, alias, last, expected)
    return _write(root, _next(last, model=model, alias=alias, kind="promote", number=number, by=by, reason=reason))


def rollback(root: str, model: str, alias: str, *, by: str, reason: str, expected: int | None = None) -> Move:
    """Give an alias back to the version that had it before the current one was promoted.

    Promotions form a stack and each rollback removes one: after promotions of 1, 2 and 3, rolling back leads to 2, and
    rolling back again to 1; after promotions of 1 and 2, a rollback and a promotion of 3, it leads to 1.

    Args:
        root: The storage root.
        model: The model's name.
        alias: The alias's name.
        by: Who moves it.
        reason: Why.
        expected: The version that must have the alias now; None: any version. A caller that may call twice must set it.

    Raises:
        ConflictError: Another version than the expected one has the alias, or another process moved it in the meantime.
        NotFoundError: There is no earlier version.
    """
    _check_names(model, alias)
    moves = history(root, model, alias)
    last = moves[-1] if moves else None
    if expected is not None and (last is None or last.number != expected):
        _refuse_move(model, alias, last, expected)
    stack = _stack(moves)
    if len(stack) < 2:
        raise NotFoundError(
            f"{model}@{alias} must have had a version before the current one, but had none. Its history: "
            f"{', '.join(f'{m.kind} {m.number}' for m in moves) or 'none'}. Promote another version instead.",
            model=model,
        )
    return _write(root, _next(last, model=model, alias=alias, kind="rollback", number=stack[-2], by=by, reason=reason))


def _stack(moves: list[Move]) -> list[int]:
    """Return the versions with promotions that were not rolled back, oldest first."""
    stack: list[int] = []
    for move in moves:
        if move.kind == "promote":
            stack.append(move.number)
        else:
            stack.pop()
    return stack


def _next(
    last: Move | None,
    *,
    model: str,
    alias: str,
    kind: Literal["promote", "rollback"],
    number: int,
    by: str,
    reason: str,
) -> Move:
    return Move(
        model=model,
        alias=alias,
        n=last.n + 1 if last else 1,
        kind=kind,
        number=number,
        before=last.number if last else None,
        follows=last.seal if last else None,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=by,
        reason=reason,
        token=uuid.uuid4().hex,
    ).sealed()


def _write(root: str, wanted: Move) -> Move:
    uri = version_uri(root, find(root, wanted.model, wanted.number))
    if not retention.keep(uri):
        raise NotFoundError(
            f"{wanted.model}@{wanted.number} must exist to get an alias, but {uri} is being deleted. Choose another "
            "version.",
            uri=uri,
        )
    # A crash here leaves a version that is kept without an alias, and nothing else.
    place = storage.join(_alias_uri(root, wanted.model, wanted.alias), f"{wanted.n}.json")
    if not storage.put_if_absent(place, wanted.to_json()):
        winner = Move.load(place)
        # If the answer to a first try was lost, the move is this call's own; a promotion may also be another process's.
        promoted = wanted.kind == winner.kind == "promote" and winner.number == wanted.number
        if winner.token != wanted.token and not promoted:
            _refuse_move(wanted.model, wanted.alias, winner, wanted.before)
        wanted = winner
    # A crash here leaves a move without a mark: `verify` would not notice its loss. Nothing else needs the mark.
    storage.put_if_absent(mark_uri(uri, wanted), MARK)
    return wanted


def mark_uri(uri: str, move: Move) -> str:
    """Return the URI of a mark in a version's folder, which tells `verify` that a move must exist."""
    return storage.join(uri, MARKS, f"{move.alias}-{move.n}")


def _refuse_move(model: str, alias: str, winner: Move | None, expected: int | None) -> NoReturn:
    there = f"version {winner.number}, by {winner.by} at {winner.at} ({winner.reason})" if winner else "no version"
    raise ConflictError(
        f"{model}@{alias} must be at {f'version {expected}' if expected else 'no version'} to be moved, but is at "
        f"{there}. Nothing was moved: look at that version, then repeat the command.",
        model=model,
        alias=alias,
        current=winner.number if winner else None,
    )


def _places(root: str, model: str, alias: str) -> dict[str, str]:
    """Return the stamp of each move of an alias by its URI, oldest first, after checking that none is missing."""
    _check_names(model, alias)
    return sequence(_alias_uri(root, model, alias))


def _load(place: str, stamp: str, model: str, alias: str, n: int) -> Move:
    move = Move.opened(storage.get(place, stamp=stamp), place)
    if (move.model, move.alias, move.n) != (model, alias, n):
        raise IntegrityError(
            f"{place} must be move {n} of {model}@{alias}, but is move {move.n} of {move.model}@{move.alias}. Restore "
            "it.",
            uri=place,
        )
    return move


def _alias_uri(root: str, model: str, alias: str) -> str:
    return storage.join(home_uri(root, model), "aliases", alias)


def _check_names(model: str, alias: str) -> None:
    check_model_name(model)
    check_alias(alias)
