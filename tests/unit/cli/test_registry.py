"""Commands that look at versions, copy them and sweep."""

import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from ada2i import storage
from ada2i.registry.aliases import move
from ada2i.registry.versions import find, read_file, register, version_uri, versions
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.data.tables import written
from tests.unit.registry.finished import finished_run, registered, unfinished

WHO = {"by": "anna", "reason": "better"}


@pytest.fixture
def store(root: Path) -> str:
    """A root with two versions, the first of which is champion."""
    for name in ("run-a", "run-b"):
        registered(root.as_uri(), name)
    move(root.as_uri(), "ada2i", "champion", 1, expected=None, **WHO)
    return root.as_uri()


def damage(store: str, name: str) -> str:
    """Change a file of the first version; return its URI."""
    uri = storage.join(version_uri(store, find(store, "ada2i", 1)), name)
    storage.put(uri, b"other")
    return uri


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("ada2i@x", "must hold the alias ada2i@x, but ada2i has none"),
        ("ada2i@", "must be MODEL, MODEL@NUMBER or MODEL@ALIAS"),
        ("ada2i@3", "a version ada2i@3"),
    ],
)
def test_registry_show_refuses(run: Run, root: Path, version: str, message: str) -> None:
    assert message in refused(run, "registry", "show", version, "--root", str(root))
    assert written(root) == []


def test_an_empty_registry(run: Run, root: Path) -> None:
    assert "No versions in" in ok(run, "registry", "list", "--root", str(root))
    assert json.loads(ok(run, "registry", "list", "--json", "--root", str(root))) == []
    assert written(root) == []


def test_list_has_room_for_every_column(run: Run, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    move(store, "ada2i", "challenger", 1, expected=None, **WHO)
    heading, _, first, second, third = ok(run, "registry", "list", "--root", store).splitlines()
    assert heading.split() == ["version", "alias", "created", "preset", "dev", "wF1", "test", "wF1"]
    version = find(store, "ada2i", 1)
    test = version.test_summary["weighted_f1"]
    score = [f"{version.dev_weighted_f1:.4f}", f"{test.mean:.4f}", "±", f"{test.sd:.4f}"]
    assert first.split() == ["ada2i@1", "challenger", version.created[:10], "reference", *score]
    assert second.split() == ["champion"]
    assert third.split()[:2] == ["ada2i@2", version.created[:10]]


def test_list_and_show_for_machines(run: Run, store: str) -> None:
    listed = json.loads(ok(run, "registry", "list", "--json", "--root", store))
    assert [(found["number"], found["aliases"]) for found in listed] == [(1, ["champion"]), (2, [])]
    shown = json.loads(ok(run, "registry", "show", "ada2i@champion", "--json", "--root", store))
    assert shown == listed[0]
    aliases = shown.pop("aliases")
    assert (shown, aliases) == (find(store, "ada2i", 1).model_dump(mode="json"), ["champion"])


def test_show_names_aliases_scores_and_files(run: Run, store: str) -> None:
    shown = ok(run, "registry", "show", "ada2i@champion", "--root", store)
    for words in ("version ada2i@1", "aliases champion", "dataset iemocap", "preset"):
        assert words in " ".join(shown.split())
    assert "aliases none" in " ".join(ok(run, "registry", "show", "ada2i", "--root", store).split())
    whole = " ".join(ok(run, "registry", "show", "ada2i@champion", "--all", "--root", store).split())
    assert "weights.safetensors 22 bytes" in whole
    assert "weights.safetensors" not in shown


def test_open_copies_the_report(run: Run, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    file = tmp_path / "report.html"
    assert ok(run, "registry", "open", "ada2i@1", "--to", str(file), "--root", store) == f"{file}\n"
    version = find(store, "ada2i", 1)
    assert file.read_bytes() == read_file(store, version, "report.html")
    assert opened == [file.as_uri()]
    again = Path(ok(run, "registry", "open", "ada2i@1", "--root", store).strip())
    assert (again.name, again.read_bytes()) == ("ada2i@1.html", file.read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a browser needs no environment variable")
def test_without_a_screen_no_browser_is_started(
    run: Run, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "report.html"
    assert ok(run, "registry", "open", "ada2i@1", "--to", str(file), "--root", store) == f"{file}\n"
    assert not opened


@pytest.mark.parametrize("command", [["list"], ["history"], ["verdicts"], ["gc"], ["verify"]])
def test_an_unknown_model_is_refused_with_a_suggestion(run: Run, store: str, command: list[str]) -> None:
    error = refused(run, "registry", *command, "adda2i", "--root", store)
    assert "must hold the model adda2i, but holds ada2i. Did you mean ada2i?" in error


def test_diff(run: Run, store: str) -> None:
    assert "ada2i@1 and ada2i@2 do not differ" in ok(
        run, "registry", "diff", "ada2i@champion", "ada2i", "--root", store
    )
    assert json.loads(ok(run, "registry", "diff", "ada2i@1", "ada2i@2", "--json", "--root", store)) == []
    register(finished_run(store, "run-c", seeds=(12,)).run_uri, root=store, model="ada2i")
    changes = json.loads(ok(run, "registry", "diff", "ada2i@champion", "ada2i", "--json", "--root", store))
    seeds = {"part": "config", "field": "training.seeds", "first": [12, 13], "second": [12]}
    assert seeds in changes
    shown = ok(run, "registry", "diff", "ada2i@champion", "ada2i", "--root", store)
    assert re.search(r"training\.seeds\W+\[12, 13\]\W+\[12\]", shown)
    longest = max(len(number) for number in re.findall(r"\d\.\d+", shown))
    assert longest <= len("0.01234")


@pytest.mark.parametrize("command", ["show", "verify", "history", "verdicts", "gc", "open"])
def test_an_address_in_place_of_a_model_is_not_printed(run: Run, store: str, command: str) -> None:
    error = refused(run, "registry", command, "s3://user:password@bucket/x?signature=secret", "--root", store)
    assert "must be lower-case letters" in error
    assert not {"password", "secret", "signature"} & set(re.findall(r"\w+", error))


@pytest.mark.parametrize("reference", ["ada2i", "ada2i@1", "ada2i@champion"])
def test_verify_finds_damage(run: Run, store: str, reference: str) -> None:
    assert f"{reference}: all files match their digests" in ok(run, "registry", "verify", reference, "--root", store)
    assert json.loads(ok(run, "registry", "verify", reference, "--json", "--root", store)) == []
    uri = damage(store, "report.html")
    code, out, err = run("registry", "verify", reference, "--root", store)
    assert (code, err) == (2, "")
    assert out.startswith(f"{uri} must hold the")
    assert out.count("\n") == 1
    code, out, err = run("registry", "verify", reference, "--json", "--root", store)
    assert (code, err) == (2, "")
    assert [problem["uri"] for problem in json.loads(out)] == [uri]


def test_verify_looks_at_one_version_where_one_is_named(run: Run, store: str) -> None:
    damage(store, "report.html")
    assert "all files match their digests" in ok(run, "registry", "verify", "ada2i@2", "--root", store)
    assert "must hold the model none" in refused(run, "registry", "verify", "none", "--root", store)


def test_pull(run: Run, store: str, tmp_path: Path) -> None:
    assert ok(run, "registry", "pull", "ada2i@champion", "here", "--root", store) == f"{tmp_path / 'here'}\n"
    assert (tmp_path / "here" / "report.html").read_bytes() == b"report.html of run-a"
    message = refused(run, "registry", "pull", "ada2i@2", "here", "--root", store)
    assert "must be new, empty or a copy of ada2i@2" in message


def test_gc_without_a_model_deletes_remains_of_imports(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "features" / "talks" / "ab"
    folder.mkdir(parents=True)
    (folder / ".partial-1").touch()
    root = ("--root", str(tmp_path))
    assert "Nothing to delete." in ok(run, "registry", "gc", *root)
    assert ok(run, "registry", "gc", "--older-than", "0s", *root).strip().endswith("features/talks/ab/.partial-1")
    assert "needs a model" in refused(run, "registry", "gc", "--versions-older-than", "1d", *root)


def test_gc_deletes_remains_and_only_then_versions(run: Run, store: str) -> None:
    unfinished(store, "run-z")
    assert "Nothing to delete." in ok(run, "registry", "gc", "ada2i", "--root", store)
    deleted = ok(run, "registry", "gc", "ada2i", "--older-than", "0s", "--root", store).splitlines()
    assert storage.join(store, "registry", "ada2i", "versions", "3", "claim.json") in deleted
    registered(store, "run-c")
    sweep = ("registry", "gc", "ada2i", "--json", "--root", store)
    assert json.loads(ok(run, *sweep, "--versions-older-than", "90d")) == []
    deleted = json.loads(ok(run, *sweep, "--versions-older-than", "0s"))
    assert storage.join(store, "registry", "ada2i", "versions", "2", "weights.safetensors") in deleted
    assert [version.number for version in versions(store, "ada2i")] == [1, 4]  # the champion and the newest


@pytest.mark.parametrize(
    ("option", "value"), [("--older-than", "1"), ("--older-than", "-1d"), ("--versions-older-than", "1y")]
)
def test_gc_refuses(run: Run, store: str, option: str, value: str) -> None:
    message = refused(run, "registry", "gc", "ada2i", f"{option}={value}", "--root", store)
    assert f"`{option}` must be a whole number followed by s, m, h, d or w, but is '{value}'" in message
