"""Hold the `reference` preset against golden vectors of the released code.

Usage: python tests/parity/golden.py FOLDER

FOLDER holds ``index.json`` and one ``<case>.safetensors`` per case. One line per case with the largest absolute
difference in outputs, losses, ratios, gradients and final parameters; exit 1 where one exceeds its tolerance, 2 where
FOLDER is wrong.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ada2i.balance import disparity, make_balancer
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import TrainConfig
from ada2i.modalities import LETTERS
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training import losses
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.parity.interop import from_released, to_released

TOLERANCES = {
    "outputs": 1e-6,
    "losses": 1e-6,
    "ratios": 1e-6,
    "gradients": 1e-6,
    "parameters": 1e-5,
    "key biases": 1e-3,
}
Case = Mapping[str, Any]
Golden = Mapping[str, Tensor]


@dataclass
class Differences:
    """Largest absolute difference seen, by kind."""

    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOLERANCES, 0.0))

    def see(self, kind: str, ours: Tensor, golden: Tensor) -> None:
        """Compare two tensors of equal size; a difference that is no number counts as infinite."""
        gap = (ours.detach().cpu().reshape(golden.shape) - golden).abs().max().item()
        self.largest[kind] = max(self.largest[kind], gap if gap == gap else float("inf"))  # noqa: PLR0124 - NaN

    def failed(self) -> list[str]:
        """Return the kinds beyond their tolerance."""
        return [kind for kind, gap in self.largest.items() if gap > TOLERANCES[kind]]


def case_config(case: Case) -> TrainConfig:
    """Return our config for a case of the index."""
    return resolve(
        preset="reference",
        settings="default",
        overrides={
            "model.modalities": [LETTERS[letter] for letter in case["modalities"]],
            "model.hidden_dim": case["hidden_dim"],
            "model.encoder.kind": case["encoder_modules"],
            "model.encoder.layers": case["encoder_nlayers"],
            "model.encoder.feedforward_dim": case["feedforward_dim"],
            "model.encoder.dropout": case["drop_rate"],
            "model.afw.rank": case["tensor_rank"],
            "model.afw.beta": case["beta"],
            "model.afw.layers": case["mmt_nlayers"],
            "model.afw.dropout": case["drop_rate"],
            "ablations.no_afw": case["no_mmt"],
            "ablations.no_amw": not case["mmcosine"],
            "ablations.no_modulation": not case["modulation"],
            "balance.alpha": case["alpha"],
            "balance.noise": case["normalize"],
            "training.learning_rate": case["lr"],
            "training.weight_decay": case["weight_decay"],
            "training.clip_norm": case["grad_clip"],
        },
    )


def golden_model(config: TrainConfig, case: Case, golden: Golden) -> Ada2I:
    """Build a model and load the golden initial parameters."""
    widths = {LETTERS[letter]: width for letter, width in case["input_dim"].items()}
    model = build_model(config, widths=widths, classes=case["num_classes"])
    released = {name.removeprefix("init/"): tensor for name, tensor in golden.items() if name.startswith("init/")}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    model.load_state_dict(from_released(released, shapes, config.model.modalities))
    return model


def golden_batch(case: Case, golden: Golden, step: int) -> DialogueBatch:
    """Return the batch of a training step."""
    dialogues, length = case["batch_size"], case["dialogue_length"]
    features = {LETTERS[m]: golden[f"batch{step}/{m}"].flatten(0, 1) for m in case["modalities"]}
    return DialogueBatch(
        features=features,
        present={m: torch.ones(len(x), dtype=torch.bool) for m, x in features.items()},
        labels=golden[f"batch{step}/label"],
        speakers=torch.zeros(dialogues * length, dtype=torch.int64),
        layout=Layout((length,) * dialogues, length),
        global_utterances=dialogues * length,
        global_dialogues=dialogues,
    )


def _device(model: Ada2I) -> torch.device:
    return next(model.parameters()).device


def check_eval(model: Ada2I, case: Case, golden: Golden, seen: Differences) -> None:
    """Compare eval-mode outputs and ratios on the first batch."""
    batch = golden_batch(case, golden, 0).to(_device(model))
    with torch.no_grad():
        prediction = model.eval()(batch)
    seen.see("outputs", prediction.logits.log_softmax(-1), golden["eval/log_prob"])
    scores = disparity.true_class_scores(prediction.unimodal_logits, batch.labels)
    ratio = disparity.disparity_ratio(scores, disparity.counted(batch.labels, None, len(scores)))
    for m, alone, rho in zip(case["modalities"], prediction.unimodal_logits, ratio, strict=True):
        seen.see("outputs", alone.log_softmax(-1), golden[f"eval/unimodal_log_prob/{m}"])
        seen.see("ratios", rho, golden[f"eval/ratio/{m}"])


def check_gradients(model: Ada2I, case: Case, golden: Golden, seen: Differences) -> None:
    """Compare train-mode outputs and raw gradients on the first batch."""
    batch = golden_batch(case, golden, 0).to(_device(model))
    prediction: Prediction = model.train()(batch)
    seen.see("outputs", prediction.logits.log_softmax(-1), golden["train/log_prob"])
    mapping = losses.feature_loss(prediction, batch, over_padding=model.average_padding).share()
    if "train/afw_loss" in golden:
        seen.see("losses", mapping, golden["train/afw_loss"])
    (losses.classification_loss(prediction, batch).share() + mapping).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in to_released(gradients, model.modalities).items():
        seen.see("gradients", gradient, golden[f"grad/{name}"])
    model.zero_grad()


def check_steps(model: Ada2I, config: TrainConfig, case: Case, golden: Golden, seen: Differences) -> None:
    """Compare the training steps and the parameters after them."""
    optimizer = make_optimizer(
        model, learning_rate=config.training.learning_rate, weight_decay=config.training.weight_decay
    )
    balancer = make_balancer(config)
    for step in range(case["steps"]):
        batch = golden_batch(case, golden, step).to(_device(model))
        clip = config.training.clip_norm
        report = train_step(model, [batch], optimizer, key=StepKey(0, step), clip_norm=clip, balancer=balancer).metrics
        seen.see("losses", report["loss"], golden[f"train/loss{step}"])
        seen.see("losses", report["gradient_norm"], golden[f"train/grad_norm{step}"])
        for m, rho in zip(case["modalities"], report["ratio"], strict=True):
            seen.see("ratios", rho, golden[f"train/ratio{step}/{m}"])
    for name, tensor in to_released(dict(model.named_parameters()), model.modalities).items():
        _see_final(name, tensor, golden[f"final/{name}"], seen)


def _see_final(name: str, ours: Tensor, golden: Tensor, seen: Differences) -> None:
    if not name.endswith("in_proj_bias"):
        seen.see("parameters", ours, golden)
        return
    # Softmax ignores a constant added to all keys: that gradient is rounding alone, and Adam turns rounding into steps.
    for kind, part, wanted in zip(
        ("parameters", "key biases", "parameters"), ours.chunk(3), golden.chunk(3), strict=True
    ):
        seen.see(kind, part, wanted)


def check_case(case: Case, golden: Golden, device: str = "cpu") -> Differences:
    """Run one case on a device and return its differences."""
    config, seen = case_config(case), Differences()
    check_eval(golden_model(config, case, golden).to(device), case, golden, seen)
    check_gradients(golden_model(config, case, golden).to(device), case, golden, seen)
    check_steps(golden_model(config, case, golden).to(device), config, case, golden, seen)
    return seen


def main(arguments: list[str]) -> int:
    """Check every case of a folder; return the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    log = logging.getLogger("golden")
    torch.set_num_threads(1)  # the models are small
    try:
        folder = Path(arguments[0])
        index = json.loads((folder / "index.json").read_text())
        files = {name: load_file(folder / f"{name}.safetensors") for name in index}
    except (IndexError, OSError, ValueError, SafetensorError) as problem:
        usage = "FOLDER must hold index.json and one .safetensors per case. Usage: golden.py FOLDER"
        log.error("%s (%s: %s)", usage, type(problem).__name__, problem)  # noqa: TRY400 - the message is enough
        return 2
    if not files:
        log.error("index.json must name one case or more, but has none. Usage: golden.py FOLDER")
        return 2
    failures = 0
    for name, case in index.items():
        seen = check_case(case, files[name])
        failed = seen.failed()
        failures += bool(failed)
        figures = "  ".join(f"{kind} {gap:.1e}" for kind, gap in seen.largest.items())
        log.info("%-4s  %-18s %s", "FAIL" if failed else "ok", name, figures)
    log.info("%d of %d cases agree", len(index) - failures, len(index))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
