"""Moving aliases, and showing who moved them."""

import getpass
import json
from pathlib import Path

import pytest

from ada2i.registry.aliases import current, history
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.registry.finished import registered


@pytest.fixture
def store(root: Path) -> str:
    """A root with three versions."""
    for name in ("run-a", "run-b", "run-c"):
        registered(root.as_uri(), name)
    return root.as_uri()


def promote(run: Run, store: str, reference: str, *arguments: str) -> str:
    return ok(run, "registry", "promote", reference, "--reason", "better", "--root", store, *arguments)


def champion(store: str) -> int | None:
    move = current(store, "ada2i", "champion")
    return move.number if move else None


def test_promotions_are_rolled_back_one_by_one(run: Run, store: str) -> None:
    assert promote(run, store, "ada2i@1") == "Moved: ada2i@champion none -> 1 (move 1).\n"
    assert promote(run, store, "ada2i@3") == "Moved: ada2i@champion 1 -> 3 (move 2).\n"
    back = ("registry", "rollback", "ada2i", "--reason", "worse", "--root", store)
    assert ok(run, *back) == "Moved: ada2i@champion 3 -> 1 (move 3).\n"
    assert "must have had a version before the current one" in refused(run, *back)
    assert champion(store) == 1


def test_an_alias_goes_to_what_another_one_names(run: Run, store: str) -> None:
    promote(run, store, "ada2i@2", "--alias", "challenger")
    promote(run, store, "ada2i@challenger")
    assert champion(store) == 2


def test_who_expects_something_else_is_refused(run: Run, store: str) -> None:
    promote(run, store, "ada2i@1", "--expected", "0")
    arguments = ("registry", "promote", "ada2i@3", "--reason", "better", "--root", store, "--expected")
    assert "must be at version 2 to be moved, but is at version 1" in refused(run, *arguments, "2")
    assert "must be at no version to be moved, but is at version 1" in refused(run, *arguments, "0")
    assert champion(store) == 1
    assert promote(run, store, "ada2i@3", "--expected", "1").startswith("Moved: ")
    # A repeated command succeeds, but not one that expected another version before.
    assert promote(run, store, "ada2i@3", "--expected", "1").startswith("Not moved: ada2i@champion points to version 3")
    assert "must be at version 7 to be moved, but is at version 3" in refused(run, *arguments, "7")
    back = ("registry", "rollback", "ada2i", "--reason", "worse", "--root", store, "--expected")
    ok(run, *back, "3")
    assert "must be at version 3 to be moved, but is at version 1" in refused(run, *back, "3")  # not rolled back twice


def test_history_shows_author_and_reason(run: Run, store: str) -> None:
    assert "ada2i@champion has never pointed to a version" in ok(run, "registry", "history", "ada2i", "--root", store)
    promote(run, store, "ada2i@1", "--by", "anna [bold]x[/bold]")
    moved = json.loads(promote(run, store, "ada2i@2", "--by", "ben", "--json"))
    moves = history(store, "ada2i", "champion")
    assert moved == moves[1].model_dump(mode="json")
    shown = ok(run, "registry", "history", "ada2i", "--root", store)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines()[3:-1]]
    assert [row[1:] for row in rows] == [
        ["promote", "1", "anna [bold]x[/bold]", "better"],
        ["promote", "2", "ben", "better"],
    ]
    found = json.loads(ok(run, "registry", "history", "ada2i", "--json", "--root", store))
    assert found == [move.model_dump(mode="json") for move in moves]
    assert json.loads(ok(run, "registry", "history", "ada2i", "--alias", "none", "--json", "--root", store)) == []


def test_who_moves_is_this_user_unless_named(run: Run, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carla")
    assert json.loads(promote(run, store, "ada2i@1", "--json"))["by"] == "carla"

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    arguments = ("registry", "promote", "ada2i@2", "--reason", "better", "--root", store)
    assert "`--by` must name who moves the alias" in refused(run, *arguments)
    ok(run, *arguments, "--by", "anna")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "ada2i@9"], "must hold a version ada2i@9"),
        (["promote", "ada2i", "--alias", "3"], "An alias must be lower-case letters"),
        (["promote", "ada2i@"], "must be MODEL, MODEL@NUMBER or MODEL@ALIAS"),
        (["rollback", "ada2i@1"], "A model's name must be lower-case letters"),
        (["rollback", "ada2i", "--alias", "none"], "must have had a version before the current one, but had none"),
    ],
)
def test_moves_refuse(run: Run, store: str, arguments: list[str], message: str) -> None:
    assert message in refused(run, "registry", *arguments, "--reason", "x", "--root", store)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_move_needs_a_reason(run: Run, store: str, command: str) -> None:
    code, out, err = run("registry", command, "ada2i", "--root", store)
    assert (code, out) == (2, "")
    assert "Missing option '--reason'" in err
