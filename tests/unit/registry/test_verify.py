"""Verification and loading: whichever byte of whichever object changes, it is named."""

import re
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, DataError, NotFoundError
from ada2i.registry.aliases import current
from ada2i.registry.paths import MANIFEST
from ada2i.registry.pull import pull
from ada2i.registry.references import resolve
from ada2i.registry.verify import verify
from ada2i.registry.versions import SWEPT, read_file
from tests.unit.registry.finished import unfinished, with_champion

FILES = (
    "weights.safetensors",
    "config.json",
    "result.json",
    "predictions.parquet",
    "environment.json",
    "report.html",
    "README.md",
)


@pytest.fixture
def root(root: str) -> str:
    return with_champion(root)


def home(root: str) -> str:
    return storage.join(root, "registry", "ada2i")


def objects(root: str) -> list[str]:
    """Return the URIs of all stored objects of the model."""
    folder = storage.local_path(home(root))
    assert folder is not None
    return sorted(path.as_uri() for path in folder.rglob("*") if path.is_file())


def flip(uri: str, position: int) -> None:
    data = bytearray(storage.get(uri))
    data[position % len(data)] ^= 1
    storage.put(uri, bytes(data))


def test_what_was_registered_verifies(root: str) -> None:
    assert verify(root, "ada2i") == []
    assert verify(root, "ada2i", 1) == []
    assert len(objects(root)) == 2 * (len(FILES) + 4) + 4  # manifest, claim, fate, mark; moves, pointers


def test_a_flipped_byte_in_any_object_is_named(root: str) -> None:
    for uri in objects(root):
        kept = storage.get(uri)
        for position in (0, len(kept) // 2, -1):
            flip(uri, position)
            found = {problem.uri: problem.message for problem in verify(root, "ada2i")}
            assert uri in found
            assert uri in found[uri]
            storage.put(uri, kept)
    assert verify(root, "ada2i") == []


def test_any_missing_object_is_named(root: str) -> None:
    for uri in objects(root):
        name = uri.rpartition("/")[2]
        if name in ("fate.json", "manifest.json") or "/moves/" in uri or uri.endswith(("/run-a.json", "/run-b.json")):
            continue  # without these there is no version, or no mark of a move, or a run's pointer: not detectable
        kept = storage.get(uri)
        storage.delete(uri)
        assert [problem.uri for problem in verify(root, "ada2i")] == [uri]
        storage.put(uri, kept)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_no_load_accepts_a_flipped_byte(root: str, tmp_path: Path, name: str) -> None:
    version = resolve(root, "ada2i@champion")
    uri = storage.join(home(root), "versions", "2", name)
    flip(uri, len(storage.get(uri)) // 3)
    named = re.escape(uri)
    with pytest.raises(DataError, match=named):
        pull(root, "ada2i@champion", tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))
    if name == MANIFEST:
        for reference in ("ada2i", "ada2i@2", "ada2i@champion"):
            with pytest.raises(DataError, match=named):
                resolve(root, reference)
    else:
        with pytest.raises(DataError, match=named):
            read_file(root, version, name)
    assert [problem.uri for problem in verify(root, "ada2i", 2)] == [uri]
    assert verify(root, "ada2i", 1) == []


def test_damage_of_one_version_leaves_the_others_alone(root: str) -> None:
    flip(storage.join(home(root), "versions", "1", MANIFEST), 100)
    assert resolve(root, "ada2i@2").number == 2
    assert resolve(root, "ada2i").number == 2


def test_an_alias_of_a_version_that_is_gone(root: str) -> None:
    storage.put(storage.join(home(root), "versions", "1", MANIFEST), SWEPT)
    (problem,) = verify(root, "ada2i")
    assert problem.uri == storage.join(home(root), "aliases", "champion")
    assert "must hold a version ada2i@1" in problem.message


def test_a_pointer_to_another_runs_version(root: str) -> None:
    place = storage.join(home(root), "runs", "run-a.json")
    for text, message in ((b"2", "but names 2, of run run-b"), (b"7", "but holds '7'")):
        storage.put(place, text)
        (problem,) = verify(root, "ada2i")
        assert problem.uri == place
        assert message in problem.message


def test_a_registration_under_way_is_no_damage(root: str) -> None:
    unfinished(root, "run-c")
    assert storage.children(storage.join(home(root), "versions")) == ["1", "2", "3"]
    assert verify(root, "ada2i") == []
    assert verify(root, "ada2i", 3) == []


def test_models_and_versions_that_are_not_there(root: str) -> None:
    with pytest.raises(NotFoundError, match="must hold a version none"):
        verify(root, "none")
    with pytest.raises(NotFoundError, match="must hold a version ada2i@9"):
        verify(root, "ada2i", 9)
    with pytest.raises(ConfigError, match="A model's name must be lower-case letters"):
        verify(root, "../ada2i")
    assert current(root, "ada2i", "champion") is not None
