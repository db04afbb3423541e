"""Files outside the root: found, read and compared."""

import time
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import Ada2iError, NotFoundError


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
