"""Classes of the caller's own: found without import, imported only if the caller named them, bound to their source."""

import sys
from pathlib import Path

import pytest

from ada2i.errors import ConfigError, IntegrityError
from ada2i.jobs import code
from ada2i.jobs.cluster import CODE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CODE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(code, "_imported", {})
    (tmp_path / "lab_single.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'marker')!r}).touch()\nclass A: ...\n"
    )
    package = tmp_path / "lab_package" / "inner"
    package.mkdir(parents=True)
    (package / "a.py").write_text("from lab_package.helper import X\nclass A(X): ...\n")
    (tmp_path / "lab_package" / "helper.py").write_text("class X: ...\n")
    return tmp_path


@pytest.mark.parametrize("name", ["lab_single:A", "lab_package.inner.a:A"])
def test_a_digest_needs_no_import(folder: Path, name: str) -> None:
    (digest,) = code.digests([name]).values()
    assert len(digest) == 64
    assert not (folder / "marker").exists()
    assert name.partition(":")[0] not in sys.modules


@pytest.mark.parametrize(
    ("name", "file"), [("lab_single:A", "lab_single.py"), ("lab_package.inner.a:A", "lab_package/helper.py")]
)
def test_another_source_has_another_digest(folder: Path, name: str, file: str) -> None:
    before = code.digests([name])
    (folder / "other.py").write_text("x = 1\n")
    assert code.digests([name]) == before
    with (folder / file).open("a") as source:
        source.write("# changed\n")
    assert code.digests([name]) != before
    with pytest.raises(IntegrityError, match=f"needs {name} with the source of SHA-256 {before[name][:16]}"):
        code.check_here(before)
    with code.named(before), pytest.raises(IntegrityError, match="but the source here has"):
        code.method(name, "The fusion")
    assert not (folder / "marker").exists()


@pytest.mark.parametrize("name", ["lab_single:A", "os:system", "subprocess:Popen"])
def test_what_the_caller_did_not_name_is_not_imported(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"add `--code {name}`"):
        code.method(name, "The fusion")
    with code.named(code.digests(["lab_package.inner.a:A"])), pytest.raises(ConfigError, match="did not"):
        code.method(name, "The fusion")
    assert not (folder / "marker").exists()


def test_names_end_with_the_block(folder: Path) -> None:
    named = code.digests(["lab_single:A"])
    with code.named(named):
        assert code.method("lab_single:A", "The fusion").__name__ == "A"
    with pytest.raises(ConfigError, match="did not"):
        code.method("lab_single:A", "The fusion")


def test_a_source_that_changes_after_its_import_is_refused(folder: Path) -> None:
    name = "lab_package.inner.a:A"
    with code.named(code.digests([name])):
        code.method(name, "The fusion")
    (folder / "lab_package" / "helper.py").write_text("class X: y = 1\n")
    with code.named(code.digests([name])), pytest.raises(ConfigError, match="was changed since"):
        code.method(name, "The fusion")


@pytest.mark.parametrize("name", ["lab_missing:A", "lab_missing.inner:A", "builtins:print"])
def test_a_module_without_source_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no source of a module `\w+`\. Run the command in the folder"):
        code.digests([name])


def test_stored_names_need_the_callers_name_and_the_stored_source(folder: Path) -> None:
    name = "lab_single:A"
    here = code.digests([name])
    with pytest.raises(ConfigError, match=f"tiny@1 was trained with {name}, code that would run here"):
        code.check_stored([name], here, "tiny@1")
    with code.named(here):
        assert code.check_stored([name], here, "tiny@1") == here
        with pytest.raises(IntegrityError, match="tiny@1 needs lab_single:A with the source of SHA-256 0000"):
            code.check_stored([name], {name: "0" * 64}, "tiny@1")
        with pytest.raises(IntegrityError, match="SHA-256 unknown"):
            code.check_stored([name], {}, "tiny@1")
