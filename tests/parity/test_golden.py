"""The `reference` preset against golden vectors of the released code, which lie outside the checkout."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import golden

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "parity"
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text()) if (FOLDER / "index.json").is_file() else {}

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not INDEX, reason=f"{FOLDER} is absent: golden vectors are not part of the code"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", INDEX)
def test_case_agrees(name: str) -> None:
    seen = golden.check_case(INDEX[name], load_file(FOLDER / f"{name}.safetensors"))
    assert seen.failed() == [], seen.largest


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("eval/log_prob", "outputs"),
        ("eval/unimodal_log_prob/a", "outputs"),
        ("train/afw_loss", "losses"),
        ("train/loss4", "losses"),
        ("train/grad_norm0", "losses"),
        ("train/ratio4/v", "ratios"),
        ("grad/net.encoder.t.transformer_encoder.layers.0.linear1.weight", "gradients"),
        ("final/net.fc_out.weight", "parameters"),
    ],
)
def test_one_wrong_number_fails(tensor: str, kind: str) -> None:
    tensors = load_file(FOLDER / "full.safetensors")
    tensors[tensor].view(-1)[-1] += 1e-4
    assert golden.check_case(INDEX["full"], tensors).failed() == [kind]


def test_one_wrong_start_fails_everywhere() -> None:
    tensors = load_file(FOLDER / "full.safetensors")
    tensors["init/net.encoder.a.lin_out.weight"].view(-1)[0] += 0.1
    failed = golden.check_case(INDEX["full"], tensors).failed()
    assert {"outputs", "losses", "ratios", "gradients", "parameters"} <= set(failed)


def test_exit_codes(tmp_path: Path) -> None:
    assert golden.main([]) == 2
    assert golden.main([str(tmp_path)]) == 2
    (tmp_path / "index.json").write_text(json.dumps({"audio_only": INDEX["audio_only"]}))
    shutil.copyfile(FOLDER / "audio_only.safetensors", tmp_path / "audio_only.safetensors")
    assert golden.main([str(tmp_path)]) == 0
    tensors = load_file(FOLDER / "audio_only.safetensors")
    tensors["train/loss0"] += float("nan")
    save_file(tensors, tmp_path / "audio_only.safetensors")
    assert golden.main([str(tmp_path)]) == 1
