"""References: newest, number or alias."""

import pytest

from ada2i.errors import ConfigError, NotFoundError
from ada2i.registry.aliases import move
from ada2i.registry.references import resolve
from tests.unit.registry.finished import registered


def test_newest_number_and_alias(root: str) -> None:
    made = [registered(root, name) for name in ("run-a", "run-b")]
    assert resolve(root, "ada2i") == made[1]
    assert resolve(root, "ada2i@1") == made[0]
    with pytest.raises(NotFoundError, match="must hold the alias ada2i@champion, but ada2i has none"):
        resolve(root, "ada2i@champion")
    move(root, "ada2i", "champion", 1, expected=None, by="anna", reason="better")
    assert resolve(root, "ada2i@champion") == made[0]
    with pytest.raises(NotFoundError, match="ada2i has champion"):
        resolve(root, "ada2i@challenger")
    with pytest.raises(NotFoundError, match="must hold a version ada2i@3"):
        resolve(root, "ada2i@3")
    with pytest.raises(NotFoundError, match="must hold a version none"):
        resolve(root, "none")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("ada2i@", "must be MODEL, MODEL@NUMBER or MODEL@ALIAS"),
        ("", "A model's name must be"),
        ("@3", "A model's name must be"),
        ("../x@3", "A model's name must be"),
        ("ada2i@-1", "An alias must be"),
        ("ada2i@1@2", "An alias must be"),
        ("ada2i@../champion", "An alias must be"),
    ],
)
def test_what_is_no_reference(root: str, reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(root, reference)
