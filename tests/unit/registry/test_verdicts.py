"""Verdicts: kept once each, in order, never overwritten; and how often a test split has decided."""

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, IntegrityError
from ada2i.registry.verdicts import record, use_test, verdicts
from tests.unit.cli.test_gating import judgement


def test_a_judgement_is_kept_with_its_author(root: str) -> None:
    assert verdicts(root, "ada2i") == []
    first = record(root, judgement(1, passed=True), by="anna")
    second = record(root, judgement(2, passed=False, champion=1), by="ben")
    assert verdicts(root, "ada2i") == [first, second]
    assert [(verdict.n, verdict.by) for verdict in verdicts(root, "ada2i")] == [(1, "anna"), (2, "ben")]
    assert second.judgement.failures == ["10 dialogues to judge by, at least 5"]


def test_the_last_judgement_again_is_kept_once(root: str) -> None:
    first = record(root, judgement(1, passed=True), by="anna")
    assert record(root, judgement(1, passed=True), by="ben") == first
    record(root, judgement(2, passed=False), by="anna")
    assert record(root, judgement(1, passed=True), by="anna").n == 3  # others came in between


def test_a_concurrent_verdict_takes_the_next_number(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.put_if_absent

    def meanwhile(uri: str, data: bytes) -> bool:
        monkeypatch.setattr(storage, "put_if_absent", real)
        record(root, judgement(2, passed=False), by="ben")
        return real(uri, data)

    monkeypatch.setattr(storage, "put_if_absent", meanwhile)
    assert record(root, judgement(1, passed=True), by="anna").n == 2
    assert [verdict.by for verdict in verdicts(root, "ada2i")] == ["ben", "anna"]


def test_a_changed_or_missing_one_is_refused(root: str) -> None:
    for number in (1, 2):
        record(root, judgement(number, passed=False), by="anna")
    place = storage.join(root, "registry", "ada2i", "verdicts", "1.json")
    whole = storage.get(place)
    storage.put(place, whole.replace(b'"anna"', b'"anne"'))
    with pytest.raises(IntegrityError, match="must have the SHA-256 that it carries as its seal"):
        verdicts(root, "ada2i")
    storage.delete(place)
    with pytest.raises(IntegrityError, match=r"must hold every record up to 2\.json, but lacks 1\.json"):
        verdicts(root, "ada2i")


def test_a_pair_counts_once_on_a_test_split(root: str) -> None:
    def use(challenger: int, champion: int | None, digest: str = "d") -> int:
        return use_test(root, "ada2i", digest, challenger=challenger, champion=champion, by="anna")

    assert [use(1, None), use(2, 1), use(2, 1), use(3, 1)] == [1, 2, 2, 3]
    assert use(3, 1, "another") == 1
    with pytest.raises(ConfigError, match="A model's name must be"):
        use_test(root, "../x", "d", challenger=1, champion=None, by="anna")
