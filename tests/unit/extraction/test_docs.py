"""The reader, the encoder and the corpus of one's own in docs/extraction.md do what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from ada2i import storage
from ada2i.data.manifest import open_features, read_shard
from ada2i.extraction.request import ExtractionRequest, ExtractSpec, prepare
from tests.unit.extraction.talks import OWN, extract_here, extracted, put, talk, tone

DOCS = Path(__file__).resolve().parents[3] / "docs" / "extraction.md"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the Python files of the docs, from where Python can import them."""
    blocks = re.findall(r"```python\n# (\w+\.py): .*?\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["loudness.py", "lines.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_an_encoder_of_ones_own(files: Path) -> None:
    talk(files / "talks", video=False)
    settings = {"encoders.audio.bands": 3}
    result = extracted(files / "talks", files / "root", "run", settings, audio="loudness:Loudness", text="none")
    features = open_features(result.features)
    vector = read_shard(features, features.manifest.shards[0])["audio_feat"][0].as_py()
    # A sine of half the full scale is 9 dB below it.
    np.testing.assert_allclose(vector, 10 * np.log10(0.125), atol=0.1)


def test_a_reader_of_ones_own(files: Path) -> None:
    for split, dialogue in (("train", "a"), ("train", "b"), ("dev", "c"), ("test", "d")):
        put(files, f"talks/{split}-{dialogue}.txt", f"A\tcalm\tHello {dialogue}.\nB\tangry\tGo away!\n".encode())
    spec = ExtractSpec(kind="lines:read_lines", location=str(files / "talks"), encoders=OWN)
    uri = prepare(spec, root=str(files / "root"), run_id="run").uri
    request = ExtractionRequest.load(storage.join(uri, "request.json"))
    manifest = open_features(extract_here(uri, request).features).manifest
    assert (manifest.dataset, manifest.labels) == ("talks", ("angry", "calm"))
    assert manifest.splits["train"].utterances == 4


def test_a_corpus_of_ones_own(tmp_path: Path) -> None:
    table = re.search(r"```csv\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert table is not None
    head, *lines = table[1].splitlines()
    more = [
        line.replace("call-1", f"call-{n}").replace("train", s) for n, s in ((2, "dev"), (3, "test")) for line in lines
    ]
    put(tmp_path, "calls/utterances.csv", "\n".join([head, *lines, *more]).encode())
    for number in (1, 2, 3):
        put(tmp_path, f"calls/audio/call-{number}.wav", tone(3.1, 300 + number))
    result = extracted(tmp_path / "calls", tmp_path / "root")
    assert {m: work.utterances for m, work in result.work.items()} == {"text": 6, "audio": 6}
