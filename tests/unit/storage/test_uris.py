"""Locations: one spelling, and nothing secret shown."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i import storage
from ada2i.errors import InputError

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..") and not name.startswith("~") and name.strip() == name and "://" not in name
)


@given(NAMES)
def test_any_name_survives_normalising(name: str) -> None:
    path = Path("/somewhere", name)
    uri = storage.normalise(str(path))
    assert storage.local_path(uri) == path
    assert storage.normalise(uri) == uri


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("/data/x/", "file:///data/x"),
        ("file:///data/x/", "file:///data/x"),
        ("file://localhost/data", "file:///data"),
        ("/data/../x y", "file:///x%20y"),
        ("file:///x%20y", "file:///x%20y"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_normalise(location: str, uri: str) -> None:
    assert storage.normalise(location) == uri


def test_normalise_makes_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalise("store") == (tmp_path / "store").as_uri()


@pytest.mark.parametrize(
    "location", ["", "  ", "gs://bucket/x", "s3://", "s3:///key", "http://host/x", "file://data/x"]
)
def test_normalise_refuses(location: str) -> None:
    with pytest.raises(InputError, match="must be a"):
        storage.normalise(location)


ONE_SLASH = ["s3:/bucket/x", "s3:bucket/x", "S3:/bucket", "file:/x", "http:/host/x", "gs:/bucket/x", "memory:/x"]


@pytest.mark.parametrize("location", ONE_SLASH)
@pytest.mark.parametrize("call", [storage.normalise, storage.check, storage.read_source, storage.source_digest])
def test_a_scheme_with_one_slash_is_no_path(call: Callable[[str], Any], location: str) -> None:
    with pytest.raises(InputError, match=r"without two slashes. Write [A-Za-z0-9]+://"):
        call(location)


@pytest.mark.parametrize("call", [storage.normalise, storage.read_source, storage.source_digest])
@pytest.mark.parametrize("location", ["", " ", "\t\n"])
def test_an_empty_location_is_refused(call: Callable[[str], Any], location: str) -> None:
    with pytest.raises(InputError, match="must be a path or a URI, but is empty"):
        call(location)


@pytest.mark.parametrize(
    "location",
    [
        "s3://u:CANARY@bucket/x",
        "s3://CANARY@bucket/x",
        "s3://bucket/x?X-Amz-Signature=CANARY",
        "s3://bucket/x?a=1&X-Amz-Credential=CANARY/2026/s3",
        "s3://bucket/x?token=CANARY",
    ],
)
@pytest.mark.parametrize("call", [storage.normalise, storage.read_source, storage.source_digest])
def test_credentials_in_a_location_of_s3_are_refused(call: Callable[[str], Any], location: str) -> None:
    with pytest.raises(InputError, match=r"^s3://bucket/x must be without a user") as caught:
        call(location)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", ["calls#2/t.parquet", "what?/t.parquet", "a?b/c#d?", "a::b/t.parquet", "[x]/a@b", "#"])
def test_any_letter_may_be_in_a_key(key: str) -> None:
    assert storage.public(f"s3://bucket/{key}") == f"s3://bucket/{key}"
    assert storage.normalise(f"s3://bucket/{key}") == f"s3://bucket/{key}"


@given(NAMES)
def test_joined_names_are_read_back_unchanged(name: str) -> None:
    assert storage.local_path(storage.join("file:///somewhere", name)) == Path("/somewhere", name)


def test_an_escaped_slash_stays_in_the_folder() -> None:
    assert storage.join("file:///x", "..%2f..%2fy") == "file:///x/..%252f..%252fy"
    assert storage.join("s3://b/x", "a%2fb", "c d") == "s3://b/x/a%2fb/c d"


def test_local_path_of_another_scheme() -> None:
    assert storage.local_path("s3://bucket/key") is None


def stamps(location: str) -> dict[str, str]:
    return storage.source_stamps([f"{location}/file"])


def files(location: str) -> list[str]:
    return storage.source_files(location, ".parquet")


@pytest.mark.parametrize(
    "call", [storage.public, storage.normalise, files, storage.read_source, storage.source_digest, stamps]
)
@pytest.mark.parametrize(
    "location", ["http://[bad", "s3://[bad/key", "s3://buck]et/key", "https://host\N{FULLWIDTH SOLIDUS}x"]
)
def test_what_is_no_url_is_refused(call: Callable[[str], Any], location: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(location)} must be a path or a URI, but .* Correct it"):
        call(location)


@pytest.mark.parametrize("call", [storage.normalise, storage.local_path, storage.get, files, stamps])
def test_what_is_no_file_url_is_refused(call: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match=r"^file://\[bad(/file)? must be a path or a URI, but "):
        call("file://[bad")


@pytest.mark.parametrize("secret", ["se[cret", "se\N{FULLWIDTH SOLIDUS}cret"])
def test_a_refusal_shows_nothing_private(secret: str) -> None:
    location = f"https://user:{secret}@host/file@2?signature=se#cret"
    with pytest.raises(InputError, match=r"^https://host/file@2 must be") as caught:
        storage.public(location)
    assert "cret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.context == {"uri": "https://host/file@2"}


def test_public() -> None:
    assert storage.public("https://user:secret@host/a b?signature=secret#part") == "https://host/a b"
    assert storage.public("/a?b") == "/a?b"
    assert storage.public("https://user:sec ret@host:9/a b") == "https://host:9/a b"
    assert storage.public("https://user:sec/re?t@host/a@b") == "https://host/a@b"
    assert storage.public("zip://in.csv::https://u:secret@host/x?secret") == "zip://in.csv::https://host/x"
    assert storage.public("HTTP://user:secret@host:80/a?secret") == "HTTP://host:80/a"


def test_texts_of_other_packages_are_cleaned() -> None:
    text = "Cannot connect to 'https://u:CANARY@host:9/a?sig=CANARY': no http://v:CANARY@proxy, /x?token=CANARY (sky)"
    assert storage.clean(text) == "Cannot connect to 'https://host:9/a': no http://proxy, /x (sky)"
