"""Files outside the root: found, read and compared."""

import errno
import time
from pathlib import Path

import fsspec
import pytest

from ada2i import storage
from ada2i.errors import Ada2iError, NotFoundError, ResourceError


def test_sources(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = storage.source_files(str(tmp_path), ".parquet")
    assert [storage.read_source(uri) for uri in found] == [b"a.parquet", b"b.parquet", b"deep/c.parquet"]
    assert len(storage.source_files(str(tmp_path / "notes.txt"), ".parquet")) == 1
    for nothing in ("none", "deep/none.parquet"):
        with pytest.raises(NotFoundError, match="has none"):
            storage.source_files(str(tmp_path / nothing), ".parquet")
    with pytest.raises(Ada2iError, match="does not exist"):
        storage.read_source(str(tmp_path / "none.parquet"))


HIDDEN = ("._a.parquet", ".tmp/a.parquet", "_a.parquet", "deep/_temporary/0/a.parquet", "_delta_log/x.parquet")


@pytest.mark.parametrize("place", ["", "memory:/"])
def test_hidden_and_unfinished_files_are_no_data(tmp_path: Path, place: str) -> None:
    folder = f"{place}{tmp_path}/.cache/set"
    fs, path = fsspec.core.url_to_fs(folder, **({} if place else {"auto_mkdir": True}))
    for name in ("a.parquet", "deep/b_.parquet", *HIDDEN):
        fs.pipe_file(f"{path}/{name}", b"")
    for suffix in (".parquet", ""):
        found = storage.source_files(folder, suffix)
        assert [uri.partition(".cache/set/")[2] for uri in found] == ["a.parquet", "deep/b_.parquet"]
    assert len(storage.source_files(f"{folder}/_a.parquet", ".parquet")) == 1


@pytest.mark.parametrize("place", ["", "memory://"])
def test_a_file_is_opened_as_a_whole(tmp_path: Path, place: str) -> None:
    uri = f"{place}{tmp_path}/a.parquet"
    fs, path = fsspec.core.url_to_fs(uri)
    fs.pipe_file(path, b"data")
    with storage.open_source(uri, whole=True) as file:
        assert (file.read(), file.seek(1), file.read(2)) == (b"data", 1, b"at")


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"memory://{tmp_path}/a.parquet"
    fs, path = fsspec.core.url_to_fs(uri)
    fs.pipe_file(path, b"data")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(fs), "get_file", full)
    with pytest.raises(
        ResourceError, match=r"The temporary folder .* must have room for a copy of memory://.*a.parquet"
    ):
        storage.open_source(uri, whole=True)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "media" / "deep").mkdir(parents=True)
    (tmp_path / "media" / "deep" / "a.wav").write_bytes(b"a")
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / "audio").symlink_to(tmp_path / "media")
    (tmp_path / "calls" / "loop").symlink_to(tmp_path / "calls")
    (tmp_path / "calls" / "b.wav").symlink_to(tmp_path / "media" / "deep" / "a.wav")
    (tmp_path / "calls" / "broken.wav").symlink_to(tmp_path / "nowhere")
    base = (tmp_path / "calls").as_uri()
    assert storage.source_files(str(tmp_path / "calls"), "") == [f"{base}/audio/deep/a.wav", f"{base}/b.wav"]
    assert storage.read_source(f"{base}/audio/deep/a.wav") == b"a"


def test_colons_do_not_make_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "a::b" / "c::d.parquet"
    path.parent.mkdir()
    path.write_bytes(b"data")
    for place in (str(path), path.as_uri()):
        assert storage.source_files(place, ".parquet") == [path.as_uri()]
        assert storage.read_source(place) == b"data"
    assert storage.source_files(str(path.parent), ".parquet") == [path.as_uri()]
    assert storage.source_digest(str(path)) == storage.digest(b"data")


def test_stamps_of_source_files_change_with_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a b.wav"
    path.write_bytes(b"one")
    uri, absent = path.as_uri(), (tmp_path / "absent").as_uri()
    before = storage.source_stamps([uri, str(path), absent])
    assert before.keys() == {uri, str(path)}
    time.sleep(0.02)  # a filesystem's clock may tick this slowly
    path.write_bytes(b"two")
    assert storage.source_stamps([uri])[uri] != before[uri]
    assert storage.source_stamps(["memory://nowhere/a", "memory://nowhere/b"]) == {}


def test_digests_of_source_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert storage.source_digest((tmp_path / "a").as_uri()) == storage.digest(b"one")
    with pytest.raises(NotFoundError, match="does not exist"):
        storage.source_digest(str(tmp_path / "b"))
