"""Aliases: moved from a known holder, back along the promotions, with every move on record."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i import storage
from ada2i.errors import ConfigError, ConflictError, IntegrityError, NotFoundError
from ada2i.registry import aliases, retention
from ada2i.registry.aliases import Move, current, history, move, rollback
from tests.unit.registry.finished import registered

WHO = {"by": "anna", "reason": "better"}


@pytest.fixture
def root(root: str) -> str:
    """A root with three versions."""
    for name in ("run-a", "run-b", "run-c"):
        registered(root, name)
    return root


def champion(root: str, number: int, expected: int | None) -> Move:
    return move(root, "ada2i", "champion", number, expected=expected, **WHO)


def back(root: str, expected: int | None = None) -> Move:
    return rollback(root, "ada2i", "champion", by="ben", reason="worse", expected=expected)


def test_moves_are_kept_with_author_and_reason(root: str) -> None:
    assert current(root, "ada2i", "champion") is None
    assert history(root, "ada2i", "champion") == []
    first = champion(root, 1, None)
    second = champion(root, 3, 1)
    assert (second.kind, second.n, second.number, second.before) == ("promote", 2, 3, 1)
    assert (second.by, second.reason, second.follows) == ("anna", "better", first.seal)
    assert current(root, "ada2i", "champion") == second
    assert history(root, "ada2i", "champion") == [first, second]
    other = move(root, "ada2i", "challenger", 2, expected=None, **WHO)
    assert aliases.aliases(root, "ada2i") == {"challenger": other, "champion": second}


def test_a_move_from_an_unexpected_version_is_refused_and_names_the_holder(root: str) -> None:
    champion(root, 1, None)
    wanted = r"ada2i@champion must be at version 2 to be moved, but is at version 1, by anna at .* \(better\)"
    with pytest.raises(ConflictError, match=wanted) as caught:
        champion(root, 3, 2)
    assert caught.value.context["current"] == 1
    with pytest.raises(ConflictError, match="must be at no version to be moved, but is at version 1"):
        champion(root, 3, None)
    with pytest.raises(ConflictError, match="must be at version 1 to be moved, but is at no version"):
        move(root, "ada2i", "challenger", 3, expected=1, **WHO)
    assert [m.number for m in history(root, "ada2i", "champion")] == [1]


def test_the_same_move_again_writes_nothing(root: str) -> None:
    first = champion(root, 1, None)
    assert champion(root, 1, None) == first
    second = champion(root, 2, 1)
    assert champion(root, 2, 1) == second
    assert len(history(root, "ada2i", "champion")) == 2


def overtaken(monkeypatch: pytest.MonkeyPatch, root: str, number: int) -> None:
    """Let another process move the alias between the next caller's look and its write."""
    real = storage.put_if_absent

    def meanwhile(uri: str, data: bytes) -> bool:
        if "/aliases/" not in uri:
            return real(uri, data)
        monkeypatch.setattr(storage, "put_if_absent", real)
        last = current(root, "ada2i", "champion")
        move(root, "ada2i", "champion", number, expected=last.number if last else None, by="ben", reason="first")
        return real(uri, data)

    monkeypatch.setattr(storage, "put_if_absent", meanwhile)


def test_a_lost_race_names_the_winner(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    champion(root, 1, None)
    overtaken(monkeypatch, root, 2)
    with pytest.raises(ConflictError, match=r"but is at version 2, by ben at .* \(first\)"):
        champion(root, 3, 1)
    overtaken(monkeypatch, root, 3)
    with pytest.raises(ConflictError, match=r"must be at version 2 to be moved, but is at version 3, by ben"):
        back(root)
    assert [m.number for m in history(root, "ada2i", "champion")] == [1, 2, 3]


def test_a_concurrent_equal_move_succeeds(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overtaken(monkeypatch, root, 2)
    assert champion(root, 2, None).by == "ben"
    assert len(history(root, "ada2i", "champion")) == 1


def test_a_move_whose_answer_was_lost_is_known_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.put_if_absent
    monkeypatch.setattr(storage, "put_if_absent", lambda uri, data: real(uri, data) and False)
    champion(root, 1, None)
    champion(root, 2, 1)
    assert back(root).number == 1
    assert [m.kind for m in history(root, "ada2i", "champion")] == ["promote", "promote", "rollback"]


def test_rolling_back_twice_goes_further_back(root: str) -> None:
    for number, expected in ((1, None), (2, 1), (3, 2)):
        champion(root, number, expected)
    assert (back(root).number, back(root).number) == (2, 1)
    with pytest.raises(NotFoundError, match=r"promote 1, promote 2, promote 3, rollback 2, rollback 1"):
        back(root)
    kinds = [(m.kind, m.number, m.before) for m in history(root, "ada2i", "champion")[3:]]
    assert kinds == [("rollback", 2, 3), ("rollback", 1, 2)]


def test_what_was_rolled_back_is_skipped(root: str) -> None:
    champion(root, 1, None)
    champion(root, 2, 1)
    back(root)
    champion(root, 3, 1)
    assert back(root).number == 1


def test_a_rollback_made_twice_by_mistake(root: str) -> None:
    for number, expected in ((1, None), (2, 1), (3, 2)):
        champion(root, number, expected)
    assert back(root, expected=3).number == 2
    with pytest.raises(ConflictError, match="must be at version 3 to be moved, but is at version 2, by ben"):
        back(root, expected=3)


@pytest.mark.parametrize("promoted", [0, 1])
def test_nothing_to_go_back_to(root: str, promoted: int) -> None:
    for number in range(1, promoted + 1):
        champion(root, number, None)
    with pytest.raises(NotFoundError, match="ada2i@champion must have had a version before the current one"):
        back(root)


ANY = Move(
    model="ada2i",
    alias="champion",
    n=1,
    kind="promote",
    number=1,
    before=None,
    follows=None,
    at="2026-11-28T10:00:00+00:00",
    by="",
    reason="",
    token="",
)


@given(st.lists(st.sampled_from([1, 2, 3, "back"]), max_size=30))
def test_promotions_pile_up_and_rollbacks_take_them_off(steps: list[int | str]) -> None:
    pile: list[int] = []
    moves: list[Move] = []
    for step in steps:
        if step == "back" and len(pile) < 2:
            continue
        if step == "back":
            pile.pop()
        else:
            pile.append(int(step))
        fields = {"kind": "rollback" if step == "back" else "promote", "number": pile[-1]}
        moves.append(ANY.model_copy(update=fields))
    assert aliases._stack(moves) == pile


def test_versions_that_are_not_there(root: str) -> None:
    with pytest.raises(NotFoundError, match="must hold a version ada2i@9, but does not"):
        champion(root, 9, None)
    assert retention.retire(storage.join(root, "registry", "ada2i", "versions", "2"))
    with pytest.raises(NotFoundError, match=r"ada2i@2 must exist to get an alias, but .* is being deleted"):
        champion(root, 2, None)
    assert history(root, "ada2i", "champion") == []


@pytest.mark.parametrize("alias", ["", "3", "3rd", "Champion", "a/b", "..", "a" * 64, "a b", "-a", "a.b", "a\n"])
def test_bad_names(root: str, alias: str) -> None:
    with pytest.raises(ConfigError, match="An alias must be lower-case letters"):
        move(root, "ada2i", alias, 1, expected=None, **WHO)
    with pytest.raises(ConfigError, match="A model's name must be lower-case letters"):
        move(root, "../x", "champion", 1, expected=None, **WHO)


def test_a_damaged_history_is_refused(root: str) -> None:
    for number, expected in ((1, None), (2, 1), (3, 2)):
        champion(root, number, expected)
    uri = storage.join(root, "registry", "ada2i", "aliases", "champion")
    places = [storage.join(uri, f"{n}.json") for n in (1, 2, 3)]
    kept = [storage.get(place) for place in places]
    storage.put(places[2], kept[2].replace(b'"number": 3', b'"number": 2'))
    with pytest.raises(IntegrityError, match=re.escape(f"{places[2]} must have the SHA-256")):
        current(root, "ada2i", "champion")
    storage.put(places[2], kept[2])
    replaced = Move.load(places[1]).model_copy(update={"number": 1}).sealed()
    storage.put(places[1], replaced.to_json())
    with pytest.raises(IntegrityError, match=re.escape(f"{places[2]} must carry the seal of the move before it")):
        history(root, "ada2i", "champion")
    storage.delete(places[1])
    with pytest.raises(IntegrityError, match=r"must hold every record up to 3\.json, but lacks 2\.json"):
        current(root, "ada2i", "champion")
