"""Every mistake in a request is found before any work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.errors import ConfigError, DataError
from ada2i.extraction.config import resolve
from ada2i.extraction.request import ExtractionRequest, ExtractSpec, check, parse, prepare
from tests.unit.extraction import own
from tests.unit.extraction.talks import OWN, prepared, talk, write_table

pytest.importorskip("transformers")
pytest.importorskip("av")


def test_defaults() -> None:
    config = resolve({}, {})
    assert {m: one.spec for m, one in config.encoders.items()} == {
        "text": "minilm",
        "audio": "prosody",
        "visual": "efficientnet-lite0",
    }
    assert (config.workers, config.policy.unreadable) == (2, 0.05)


def test_overrides_reach_their_fields() -> None:
    given = {
        "encoders.visual.size": 160,
        "media.max_frames": 8,
        "policy.unreadable": 0.5,
        "workers": 3,
        "chunk.text": 9,
    }
    config = resolve({"audio": "none", "text": "minilm"}, given)
    assert list(config.encoders) == ["text", "visual"]
    assert config.encoders["visual"].settings == {"size": 160}
    assert (config.media.max_frames, config.policy.unreadable, config.workers, config.chunk.text) == (8, 0.5, 3, 9)


def test_settings_of_several_encoders_are_by_encoder() -> None:
    mine = "tests.unit.extraction.own:Words"
    given = {
        "encoders.text.minilm.layers": "4-6",
        "encoders.text.minilm.lowercase": True,
        f"encoders.text.{mine}.power": 2,
    }
    chosen = resolve({"text": f"minilm, {mine}"}, given).encoders["text"]
    assert chosen.spec == f"minilm,{mine}"
    assert chosen.settings == {"minilm": {"layers": "4-6", "lowercase": True}, mine: {"power": 2}}
    assert resolve({"text": "minilm"}, {"encoders.text.minilm.layers": 3}).encoders["text"].settings == {"layers": 3}


@pytest.mark.parametrize(
    ("specs", "overrides", "message"),
    [
        ({"text": "minilm,minilm"}, {}, r"side by side must be different, but minilm,minilm names one twice"),
        ({"text": "minilm,"}, {}, r"but '' is not known"),
        ({"text": "minilm,prosody"}, {}, r"but 'prosody' reads audio"),
        (
            {"text": "minilm,tests.unit.extraction.own:Words"},
            {"encoders.text.layers": 3},
            r"must name its encoder, one of minilm, tests.* but `layers` does not. Write for example `minilm.layers`",
        ),
        (
            {"text": "minilm,tests.unit.extraction.own:Words"},
            {"encoders.text.minilm.power": 2},
            r"settings of the encoder minilm may be layers, .* `power`: Extra inputs",
        ),
        ({"text": "minilms"}, {}, r"text encoder must be one of minilm, .* but 'minilms' is not known"),
        ({"audio": "minilm"}, {}, r"audio encoder must be .* but 'minilm' reads text"),
        (
            {},
            {"encoders.visual.sizes": 1},
            r"settings of the encoder efficientnet-lite0 may be size, detection_side, but",
        ),
        ({}, {"encoders.audio": "x"}, r"`encoders.audio` must be encoders.<modality>.<setting>"),
        ({"audio": "none"}, {"encoders.audio.x": 1}, r"with a modality of text, visual, but is not"),
        ({}, {"workers": 0}, r"`workers`: Input should be greater than or equal to 1, but found 0"),
        ({}, {"media.frames": 1}, r"`media.frames`: Extra inputs are not permitted"),
        ({}, {"polices.x": 1}, r"`polices`: Extra inputs"),
        ({}, {"policy.unreadable": 2}, r"`policy.unreadable`: Input should be less than or equal to 1"),
        (
            dict.fromkeys(("text", "audio", "visual"), "none"),
            {},
            r"`encoders`: there must be an encoder for at least one modality",
        ),
        (
            {"text": "no.such.module:Encoder"},
            {},
            r"no.such.module:Encoder must be package.module:Class that Python can",
        ),
    ],
)
def test_mistakes(specs: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(specs, overrides)


def test_what_features_mean() -> None:
    assert parse("demo-media") == ("demo-media", "")
    assert parse("corpus:meld:s3://a/b") == ("meld", "s3://a/b")
    assert parse("corpus:lines:read_lines:talks") == ("lines:read_lines", "talks")
    assert parse("demo") is None
    assert parse("file:///features") is None
    for text in ("corpus:meld", "corpus:", "corpus:meld:"):
        with pytest.raises(DataError, match=r"must be named corpus:KIND:LOCATION .*, but is 'corpus:"):
            parse(text)


def test_only_what_changes_no_vector_may_change_in_a_request(tmp_path: Path) -> None:
    talk(tmp_path / "talks", video=False)
    uri = prepared(tmp_path / "talks", tmp_path / "root", "run")
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    assert request.location == str(tmp_path / "talks")
    assert prepared(tmp_path / "talks", tmp_path / "root", "run", {"workers": 1}) == uri
    with pytest.raises(ConfigError, match=r"Extraction run must be resumed with the corpus and config"):
        prepared(tmp_path / "talks", tmp_path / "root", "run", {"encoders.text.scale": 3.0})
    now = ExtractionRequest.load(storage.join(uri, "request.json"))
    assert now.config.workers == 1
    assert now.model_copy(update={"config": request.config}) == request


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": ""}, r"Column `split` of .* must hold a value"),
    ],
)
def test_a_corpus_that_cannot_become_features(tmp_path: Path, change: dict[str, str], message: str) -> None:
    lines = talk(tmp_path / "talks", video=False)
    lines[-1].update(change)
    write_table(tmp_path / "talks", lines)
    own.CALLS.clear()
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "talks", tmp_path / "root", "run")
    with pytest.raises(DataError, match=message):
        check("folder", str(tmp_path / "talks"))
    assert own.CALLS == []
    assert not (tmp_path / "root").exists()


def test_a_location_with_credentials_is_not_stored(tmp_path: Path) -> None:
    spec = ExtractSpec(kind="folder", location="https://me:secret@example.org/talks", encoders=OWN)
    with pytest.raises(DataError, match=r"must carry no credentials.*https://example\.org/talks has some") as caught:
        prepare(spec, root=str(tmp_path), run_id="run")
    assert "secret" not in caught.value.message


def test_an_own_reader_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("lines:read must be package.module:function that Python can import")):
        check("lines:read", str(tmp_path))


@pytest.mark.parametrize("name", ["../../../x", "a/b", "a\\b", " ", ""])
def test_a_corpus_with_a_path_for_a_name_is_refused_before_encoding(tmp_path: Path, name: str) -> None:
    talk(tmp_path / "talks", video=False)
    (tmp_path / "talks" / "corpus.json").write_text(json.dumps({"name": name}))
    own.CALLS.clear()
    if not name:  # the folder's name is used
        assert prepared(tmp_path / "talks", tmp_path / "root", "run")
        return
    with pytest.raises(DataError, match=r"name of a corpus must be neither empty nor a path, .* with `--dataset`"):
        prepared(tmp_path / "talks", tmp_path / "root", "run")
    assert own.CALLS == []
