"""Judging versions from the command line, and showing what was judged."""

import json
from pathlib import Path

import pytest

from ada2i.promotion import gate
from ada2i.promotion.rules import GateRules
from ada2i.records import RuleResult
from ada2i.registry.aliases import current
from ada2i.registry.verdicts import Judgement, record, verdicts
from ada2i.registry.versions import Version
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.registry.finished import registered


def judgement(challenger: int, *, passed: bool, champion: int | None = None) -> Judgement:
    says = "10 dialogues to judge by, at least 5"
    result = RuleResult(rule="dialogues", passed=passed, measured=10, bound=5, says=says)
    return Judgement(
        model="ada2i",
        alias="champion",
        challenger=challenger,
        champion=champion,
        decision="promote" if passed else "refuse",
        split="gate",
        dialogues=10,
        utterances=90,
        left_out={"version 1 was trained or selected on them": 2},
        notes=(),
        test_uses=None,
        synthetic=True,
        rules=GateRules().model_dump(mode="json"),
        results=(result,),
        sides=(),
    )


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root with two versions, of which the gate only lets the first one pass."""
    for name in ("run-a", "run-b"):
        registered(root.as_uri(), name)

    def judge(root: str, challenger: Version, champion: Version | None, *_: object, **__: object) -> Judgement:
        found = champion.number if champion else None
        return judgement(challenger.number, passed=challenger.number == 1, champion=found)

    monkeypatch.setattr(gate, "judge", judge)
    return root.as_uri()


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_the_last_line_says_whether_the_alias_moved(run: Run, store: str) -> None:
    gate_ = ("registry", "gate", "ada2i@1", "--root", store)
    assert last_line(ok(run, *gate_)).startswith("Dry run: champion stays without a version.")
    shown = ok(run, *gate_, "--promote")
    assert "ada2i@1 is champion now, the first champion." in shown
    assert last_line(shown) == "Moved: champion none -> 1 (move 1)."
    assert last_line(ok(run, *gate_, "--promote")) == "Not moved: ada2i@1 is champion already (move 1)."
    _, shown, _ = run("registry", "gate", "ada2i@2", "--promote", "--root", store)
    assert last_line(shown) == "Not moved: champion stays at version 1."


def test_other_rules_on_a_judged_version_are_refused(run: Run, store: str) -> None:
    gate_ = ("registry", "gate", "ada2i@1", "--promote", "--root", store)
    ok(run, *gate_)
    error = refused(run, *gate_, "--set", "dialogues=3", "--set", "margin=0.5")
    assert "must be judged again with the rules of verdict 1, but dialogues 10 then, 3 now; margin 0.02 then" in error
    assert len(verdicts(store, "ada2i")) == 1


def test_a_version_that_was_rolled_back_needs_again(run: Run, store: str) -> None:
    ok(run, "registry", "promote", "ada2i@2", "--reason", "first", "--root", store)
    gate_ = ("registry", "gate", "ada2i@1", "--promote", "--root", store)
    ok(run, *gate_)
    ok(run, "registry", "rollback", "ada2i", "--reason", "worse on calls", "--by", "anna", "--root", store)
    error = refused(run, *gate_)
    assert "ada2i@1 must not have been rolled back, but anna took champion from it" in error
    assert "(worse on calls)" in error
    assert last_line(ok(run, *gate_, "--again")) == "Moved: champion 2 -> 1 (move 4)."


def test_a_dry_run_changes_nothing(run: Run, store: str) -> None:
    shown = ok(run, "registry", "gate", "ada2i@1", "--root", store)
    assert "ada2i@1 may become champion." in shown
    assert "Left out: 2 dialogues, since version 1 was trained or selected on them." in shown
    assert "SYNTHETIC" in shown
    assert verdicts(store, "ada2i") == []
    assert current(store, "ada2i", "champion") is None


def test_a_promotion_keeps_the_verdict_and_moves_the_alias(run: Run, store: str) -> None:
    ok(run, "registry", "gate", "ada2i@1", "--promote", "--by", "anna", "--root", store)
    moved = current(store, "ada2i", "champion")
    assert moved is not None
    assert (moved.number, moved.by) == (1, "anna")
    assert [verdict.by for verdict in verdicts(store, "ada2i")] == ["anna"]


def test_a_refusal_exits_with_1(run: Run, store: str) -> None:
    ok(run, "registry", "gate", "ada2i@1", "--promote", "--root", store)
    code, out, err = run("registry", "gate", "ada2i@2", "--promote", "--json", "--root", store)
    assert (code, err) == (1, "")
    assert Judgement.model_validate_json(out) == judgement(2, passed=False, champion=1)
    moved = current(store, "ada2i", "champion")
    assert moved is not None
    assert moved.number == 1


def test_a_version_that_was_promoted_by_hand_is_not_refused(run: Run, store: str) -> None:
    ok(run, "registry", "promote", "ada2i@2", "--reason", "licence", "--root", store)
    code, _, err = run("registry", "gate", "ada2i@2", "--promote", "--root", store)
    assert code == 0
    assert "ada2i@2 is champion: licence. The gate did not judge it." in err
    record(store, judgement(2, passed=False), by="anna")
    ok(run, "registry", "gate", "ada2i@2", "--promote", "--root", store)


def test_verdicts_are_listed(run: Run, store: str) -> None:
    assert "has been judged" in ok(run, "registry", "verdicts", "ada2i", "--root", store)
    record(store, judgement(1, passed=True), by="anna")
    record(store, judgement(2, passed=False, champion=1), by="ben")
    shown = ok(run, "registry", "verdicts", "ada2i", "--root", store)
    assert "refuse as" in shown
    page = ok(run, "registry", "verdicts", "ada2i", "--page", "2", "--root", store)
    assert page.startswith("# ada2i@2 is refused as champion: 10 dialogues to judge by")
    assert "has 2. `registry verdicts`" in refused(run, "registry", "verdicts", "ada2i", "--page", "3", "--root", store)
    found = json.loads(ok(run, "registry", "verdicts", "ada2i", "--json", "--root", store))
    assert [verdict["judgement"]["challenger"] for verdict in found] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ada2i@9"], "must hold a version ada2i@9"),
        (["ada2i@1", "--set", "margin=7"], "`margin`: Input should be less than or equal to 1, but found 7"),
        (["ada2i@1", "--set", "morgin=0"], "`morgin`"),
        (["ada2i@1", "--alias", "3"], "An alias must be lower-case letters"),
    ],
)
def test_gate_refuses(run: Run, store: str, arguments: list[str], message: str) -> None:
    assert message in refused(run, "registry", "gate", *arguments, "--root", store)
