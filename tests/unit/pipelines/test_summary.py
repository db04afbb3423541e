"""How a run ended: by verdict and alias, of which people may move the latter whatever the gate says."""

from pathlib import Path

import pytest

from ada2i.registry.aliases import move, rollback
from ada2i.registry.verdicts import Judgement, Verdict, record
from ada2i.registry.versions import Version
from pipelines import train
from pipelines.promote import gate, look_for_alias
from pipelines.summary import _reason, _what
from tests.unit.cli.test_gating import judgement
from tests.unit.registry.finished import registered


@pytest.fixture
def root(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def versions(root: str) -> list[Version]:
    found = [registered(root, name, "ada2i") for name in ("run-a", "run-b")]
    move(root, "ada2i", "champion", 1, expected=None, by="anna", reason="first")
    return found


def said(root: str, found: Judgement) -> Verdict:
    return record(root, found, by="a night")


def promote(root: str, reason: str) -> None:
    move(root, "ada2i", "champion", 2, expected=1, by="anna", reason=reason)


def test_a_night_that_is_tried_again_undoes_no_rollback(root: str, versions: list[Version]) -> None:
    verdict = said(root, judgement(2, passed=True, champion=1))
    promote(root, "verdict 1")
    rollback(root, "ada2i", "champion", by="anna", reason="worse")
    assert train.gate_once.fn(root, versions[1], {}) == (verdict, False)
    held = look_for_alias.fn(root, versions[1])
    assert held is None
    assert _what(verdict, held, trained=True) == "Registered"
    assert _reason(verdict, held, "").endswith("It is not now: the alias was moved on, or back.")


def test_an_override_says_its_reason_first(root: str, versions: list[Version]) -> None:
    verdict = said(root, judgement(2, passed=False, champion=1))
    assert (_what(verdict, None, trained=True), _reason(verdict, None, "")[:18]) == ("Refused", "ada2i@2 is refused")
    promote(root, "licence (overrides verdict 1: too few)")
    assert gate.fn(root, versions[1], {}) == verdict
    held = look_for_alias.fn(root, versions[1])
    assert _what(verdict, held, trained=False) == "Promoted"
    assert _reason(verdict, held, "").startswith("ada2i@2 is champion: licence (overrides verdict 1: too few). ada2i@2")


def test_who_was_promoted_by_hand_is_not_judged(root: str, versions: list[Version]) -> None:
    promote(root, "licence")
    assert gate.fn(root, versions[1], {}) is None
    held = look_for_alias.fn(root, versions[1])
    assert _what(None, held, trained=False) == "Promoted"
    assert _reason(None, held, "The gate was not asked.") == "ada2i@2 is champion: licence. The gate was not asked."
