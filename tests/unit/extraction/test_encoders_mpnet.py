"""mpnet: the published weights, from packages that are optional because of their size."""

from typing import Any

import numpy as np
import pytest

from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.encoders.registry import ENCODERS, load
from ada2i.extraction.encoders.text import MPNET
from tests.unit.extraction import tiny
from tests.unit.extraction.test_encoders_text import check_batch_is_single

TEXTS = ["I am so happy!", "Why would you do that?"]


@pytest.fixture(scope="module")
def mpnet() -> Encoder[Any]:
    if missing := next(one for one in ENCODERS if one.name == "mpnet").missing():
        pytest.skip(f"needs the packages of the extra `mpnet`, about 400 MB: {', '.join(missing)}")
    return load("mpnet", "text")


def test_the_mean_of_layers_5_to_8_over_the_tokens(mpnet: Encoder[Any]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = MPNET.folder()
    assert (mpnet.info.name, mpnet.info.width, mpnet.info.licence) == ("mpnet", 768, "Apache-2.0")
    assert mpnet.info.settings["layers"] == "5-8"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModel.from_pretrained(folder)
    for text, one in zip(TEXTS, mpnet.encode(TEXTS), strict=True):
        with torch.no_grad():
            states = network(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = torch.stack([states[layer][0].mean(0) for layer in (5, 6, 7, 8)]).mean(0)
        np.testing.assert_allclose(tiny.vector(one), expected, atol=1e-4)


def test_mpnet_batch_is_single(mpnet: Encoder[Any]) -> None:
    check_batch_is_single(mpnet)


def test_the_digests_are_those_of_every_file_that_is_loaded() -> None:
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(MPNET.digests)
    assert not any(name.endswith((".bin", ".pkl", ".pt")) for name in MPNET.digests)
