"""One rank that takes a few steps with every balance method, one after the other, without Ray; a script."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from ada2i import fast
from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import REGRESSION_METHODS
from ada2i.loader.order import share
from ada2i.model.build import build_model
from ada2i.presets import resolve
from ada2i.training.ddp import replicate
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer
from tests.integration.ranks import leave_group, replica_digest
from tests.unit.balance.runs import ACTIVE, overrides
from tests.unit.model.batches import CLASSES, SMALL, WIDTHS, make_batch, reorder

LENGTHS = (3, 1, 6, 4, 2)  # of the dialogues of a batch
STEPS, EPOCHS = 2, 2
QUIET = {"model.encoder.input_dropout": 0.0, "training.learning_rate": 1.7e-4}


def share_of(world: int, rank: int, step: int, *, regression: bool = False, taught: bool = False) -> DialogueBatch:
    """Return a rank's share of a batch in which each modality is missing somewhere, and a label or target, too."""
    whole = make_batch(LENGTHS, seed=step)
    for place, modality in enumerate(WIDTHS):
        whole.present[modality][place :: 4 + place] = False
        whole.features[modality][~whole.present[modality]] = 0.0
    whole.labels[5] = -1
    owned = share(range(len(LENGTHS)), np.array(LENGTHS), world)[rank]
    own = owned or [0]
    starts = np.cumsum([0, *LENGTHS])
    rows = torch.cat([torch.arange(starts[d], starts[d + 1]) for d in own])
    part = reorder(whole, rows, [LENGTHS[d] for d in own])
    targets = torch.randn(sum(LENGTHS), generator=torch.Generator().manual_seed(step))
    targets[[2, 5]] = torch.nan
    chances = torch.rand(sum(LENGTHS), CLASSES, generator=torch.Generator().manual_seed(step)).softmax(dim=-1)
    encodings = torch.randn(
        sum(LENGTHS), len(WIDTHS), SMALL["model.hidden_dim"], generator=torch.Generator().manual_seed(step)
    )
    members = tuple(range(len(LENGTHS) * step, len(LENGTHS) * (step + 1)))
    return DialogueBatch(
        features=part.features,
        present=part.present,
        labels=part.labels,
        speakers=part.speakers,
        layout=Layout(part.layout.lengths, max(LENGTHS)),
        global_utterances=sum(LENGTHS),
        global_dialogues=len(LENGTHS),
        counted=bool(owned),
        labelled=sum(LENGTHS) - 1,
        dialogues=tuple(members[d] for d in own),
        members=members,
        targets=targets[rows] if regression else None,
        targeted=sum(LENGTHS) - 2,
        taught=chances[rows] if taught else None,
        taught_encodings=encodings[rows],
    )


def train(
    method: str, preset: str, world: int, rank: int, *, regression: bool = False, taught: bool = False
) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights after some steps, and a digest of their bits."""
    fields = {**SMALL, **overrides(method, ACTIVE.get(method, {}))} | (QUIET if preset == "corrected" else {})
    fields |= {"task": "regression"} if regression else {}
    fields |= {"loss.distillation": 2.0, "loss.distillation_temperature": 3.0} if taught else {}
    config = resolve(preset=preset, settings="default", overrides=fields)
    torch.manual_seed(0)
    model = build_model(config, widths=WIDTHS, classes=CLASSES)
    optimizer = make_optimizer(model, learning_rate=1.7e-4, weight_decay=1e-8)
    balancer = make_balancer(config)
    more: dict[str, Any] = {"clip_norm": 2.0, "balancer": balancer, "weights": config.loss}
    network = replicate(model, share_of(world, rank, 0, regression=regression), config.loss)
    class_weights = None if regression else torch.linspace(0.5, 1.5, CLASSES)
    for epoch in range(EPOCHS):
        balancer.set_epoch(epoch + 1)
        for step in range(STEPS):
            key = StepKey(seed=3, step=epoch * STEPS + step)
            batch = share_of(world, rank, step, regression=regression, taught=taught)
            train_step(network, [batch], optimizer, key=key, class_weights=class_weights, **more)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, replica_digest(network)


def main(out: Path, world: int, rank: int) -> None:
    """Train by every method; write weights on rank 0, and every replica's digests."""
    torch.set_num_threads(1)
    fast.enable(True)
    if world > 1:
        store = (out / f"store-{world}").as_uri()
        dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    weights: dict[str, torch.Tensor] = {}
    digests = []
    for preset in ("corrected", "reference"):
        for method in ACTIVE:
            found, digest = train(method, preset, world, rank)
            weights |= {f"{preset}/{method}/{name}": tensor for name, tensor in found.items()}
            digests.append(digest)
    for method in REGRESSION_METHODS:
        found, digest = train(method, "corrected", world, rank, regression=True)
        weights |= {f"regression/{method}/{name}": tensor for name, tensor in found.items()}
        digests.append(digest)
    found, digest = train("unimodal", "corrected", world, rank, taught=True)
    weights |= {f"distilled/unimodal/{name}": tensor for name, tensor in found.items()}
    digests.append(digest)
    if rank == 0:
        save_file(weights, out / f"weights-{world}.safetensors")
    (out / f"digests-{world}-{rank}").write_text("\n".join(digests))
    if world > 1:
        leave_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
