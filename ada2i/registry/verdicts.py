"""Permanent records of the verdicts on challengers, with all numbers, and of the pairs that a test split has judged.

`<root>/registry/<model>/verdicts/<n>.json` is the model's n-th verdict, written only if absent, before the alias moves.
`<root>/registry/<model>/test-uses/<digest>/<challenger>-<champion>.json` records that a test split was used to decide
between two versions: one object per pair, however often it is used.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue

from ada2i import storage
from ada2i.display import count
from ada2i.errors import IntegrityError
from ada2i.records import Alias, Instant, ModelName, ModelScores, Number, Record, RuleResult, Sealed
from ada2i.registry.paths import home_uri, sequence
from ada2i.registry.versions import check_model_name

NO_CHAMPION = 0  # instead of a champion's number if there is no champion


class Judgement(Record):
    """A judgement on a challenger; the same versions, features and rules give the same judgement."""

    model: ModelName
    alias: Alias
    challenger: Number
    champion: Number | None  # the version that has the alias; None: no version has it
    decision: Literal["promote", "refuse"]
    split: str  # the split that decided
    dialogues: int
    utterances: int
    left_out: dict[str, int]  # dialogues of that split, by the reason why they do not count
    notes: tuple[str, ...]
    test_uses: int | None  # pairs that the test split has judged, this one included; None if a gate split decided
    synthetic: bool
    rules: dict[str, JsonValue]  # resolved
    results: tuple[RuleResult, ...]
    sides: tuple[ModelScores, ...]  # challenger, then champion; empty if there was no dialogue to judge by

    @property
    def facts(self) -> str:
        """What was compared, and the scores, in a few words."""
        where = count(self.dialogues, f"{self.split} dialogue")
        if not self.sides:
            return f"{where}: nothing to compare"
        first, *other = (f"{side.scores.weighted_f1:.4f}" for side in self.sides)
        against = f" against {other[0]} of version {self.champion}" if other else ", and no champion before it"
        return f"{where}: weighted F1 {first} of version {self.challenger}{against}"

    @property
    def failures(self) -> list[str]:
        """The explanations of the rules that forbid a promotion."""
        return [result.says for result in self.results if not result.passed]


class Verdict(Sealed):
    """A stored judgement."""

    schema_version: Literal[1] = 1
    n: Number  # counted from 1
    at: Instant
    by: str
    judgement: Judgement


class _Use(Record):
    """The fact that two versions were compared on a test split."""

    at: str
    by: str


def verdicts(root: str, model: str) -> list[Verdict]:
    """Return all verdicts on a model's versions, oldest first.

    Raises:
        ConfigError: The model's name is not a safe folder name.
        IntegrityError: A verdict is damaged or missing.
    """
    return [*newest_verdicts(root, model)][::-1]


def newest_verdicts(root: str, model: str) -> Iterator[Verdict]:
    """Yield all verdicts, newest first, each read when it is needed. Raises as ``verdicts``."""
    places = list(sequence(_verdicts_uri(root, model)).items())
    return (_load(*places[n - 1], model, n) for n in range(len(places), 0, -1))


def _load(place: str, stamp: str, model: str, n: int) -> Verdict:
    verdict = Verdict.opened(storage.get(place, stamp=stamp), place)
    if (verdict.judgement.model, verdict.n) != (model, n):
        raise IntegrityError(
            f"{place} must be verdict {n} on {model}, but is verdict {verdict.n} on {verdict.judgement.model}. Restore "
            "it.",
            uri=place,
        )
    return verdict


def record(root: str, judgement: Judgement, *, by: str) -> Verdict:
    """Record a judgement, unless it equals the last recorded one.

    Args:
        root: The storage root.
        judgement: The judgement.
        by: Who requested it.
    """
    while True:
        last = next(newest_verdicts(root, judgement.model), None)
        if last and last.judgement == judgement:
            return last
        verdict = Verdict(n=last.n + 1 if last else 1, at=_now(), by=by, judgement=judgement).sealed()
        # After a crash here the alias has not moved yet; the next call returns this verdict and moves it.
        if storage.put_if_absent(_place(root, judgement.model, verdict.n), verdict.to_json()):
            return verdict


def use_test(root: str, model: str, digest: str, *, challenger: int, champion: int | None, by: str) -> int:
    """Record that a test split is used to decide between two versions; return for how many pairs it has been used.

    Args:
        root: The storage root.
        model: The model's name.
        digest: Digest of the test split's dialogues and labels.
        challenger: Number of the version that is judged.
        champion: Number of the version that has the alias; None: no version.
        by: Who requests it.
    """
    check_model_name(model)
    uri = storage.join(home_uri(root, model), "test-uses", digest)
    use = _Use(at=_now(), by=by)
    storage.put_if_absent(storage.join(uri, f"{challenger}-{champion or NO_CHAMPION}.json"), use.to_json())
    return len(storage.children(uri))


def _verdicts_uri(root: str, model: str) -> str:
    check_model_name(model)
    return storage.join(home_uri(root, model), "verdicts")


def _place(root: str, model: str, n: int) -> str:
    return storage.join(_verdicts_uri(root, model), f"{n}.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
