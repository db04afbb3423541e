"""Checks classes of the caller's own before any job: what they return, and that training with them is reproducible.

Each is built with the run's numbers and tried on four made-up dialogues, some of whose vectors and labels are missing.

Shape letters in this file:
    N utterances     M modalities     H hidden width     C classes
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import TrainConfig
from ada2i.errors import Ada2iError, ConfigError
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.model.own import FusionHolder
from ada2i.records import UNLABELLED, FeatureInfo
from ada2i.training.status import StepKey
from ada2i.training.step import train_step
from ada2i.training.update import make_optimizer

Run = Callable[[DialogueBatch], Sequence[Any]]  # a part's outputs for a batch

_LENGTHS = (3, 1, 5, 2)  # of the dialogues
_CLOSE = 1e-3  # largest difference that other dialogues may make in a batch: rounding
_STEPS = 2


def check_methods(config: TrainConfig, features: FeatureInfo) -> None:
    """Check the classes of the caller's own that a config names; do nothing if there are none.

    Raises:
        ConfigError: A class cannot be imported or built, or does not do what its protocol says: docs/methods.md.
    """
    if not config.own_code:
        return
    with torch.random.fork_rng():
        model, batch = _model(config, features), _batch(config, features)
        rows, names = len(batch.labels), ", ".join(config.own_code)
        if ":" in config.model.encoder.kind:
            encoders = [model.encoders[m] for m in model.modalities]
            shapes = [(rows, config.model.hidden_dim)] * len(encoders)
            _check_part(f"The encoder {config.model.encoder.kind}", encoders, _encode(model), batch, shapes)
        if isinstance(model.fusion, FusionHolder):
            classes = model.fusion.classes
            of_fusion = [(rows, classes), (len(model.modalities), rows, classes)]
            fuse = _fuse(model, model.fusion, config.model.hidden_dim, batch)
            _check_part(f"The fusion {config.model.fusion}", [model.fusion], fuse, batch, of_fusion)
        with _explained(f"Training with {names}"):
            weights = [_trained(config, features, batch) for _ in range(2)]
        _require(
            all(torch.equal(x, y) for x, y in zip(*weights, strict=True)),
            f"Training with {names} must give the same weights from the same seed",
            "two trainings differ",
            "Draw random numbers from torch only",
        )


def _model(config: TrainConfig, features: FeatureInfo) -> Ada2I:
    torch.manual_seed(0)
    with _explained(f"A model with {', '.join(config.own_code)}"):
        return build_model(config, widths=features.widths, classes=len(features.labels))


def _batch(config: TrainConfig, features: FeatureInfo) -> DialogueBatch:
    """Return dialogues in which each modality is missing somewhere, and one label."""
    rows, modalities = sum(_LENGTHS), config.model.modalities
    present = {m: torch.ones(rows, dtype=torch.bool) for m in modalities}
    for place, there in enumerate(present.values()) if len(modalities) > 1 else ():
        there[place :: 4 + place] = False
    labels = torch.arange(rows) % len(features.labels)
    labels[4] = UNLABELLED
    return DialogueBatch(
        features={m: torch.randn(rows, features.widths[m]) * present[m][:, None] for m in modalities},
        present=present,
        labels=labels,
        speakers=torch.tensor([place % 2 for length in _LENGTHS for place in range(length)]),
        layout=Layout(_LENGTHS, max(_LENGTHS), speakers=2),
        global_utterances=rows,
        global_dialogues=len(_LENGTHS),
        labelled=rows - 1,
        targets=torch.where(labels == UNLABELLED, torch.nan, torch.randn(rows)) if config.regression else None,
        targeted=rows - 1,
        dialogues=tuple(range(len(_LENGTHS))),
        members=tuple(range(len(_LENGTHS))),
    )


def _alone(batch: DialogueBatch) -> DialogueBatch:
    """Return the last dialogue of a batch."""
    rows = _LENGTHS[-1]
    return DialogueBatch(
        features={m: x[-rows:] for m, x in batch.features.items()},
        present={m: x[-rows:] for m, x in batch.present.items()},
        labels=batch.labels[-rows:],
        speakers=batch.speakers[-rows:],
        layout=Layout((rows,), rows, speakers=2),
        global_utterances=rows,
        global_dialogues=1,
    )


def _encode(model: Ada2I) -> Run:
    def run(batch: DialogueBatch) -> Sequence[Any]:
        present = model.presence(batch)
        return [model.encoders[m](x, batch.layout, batch.speakers, present[m]) for m, x in batch.features.items()]

    return run


def _fuse(model: Ada2I, fusion: FusionHolder, hidden_dim: int, whole: DialogueBatch) -> Run:
    """Return the fusion's own outputs for made-up encodings, which need a gradient."""
    drawn = {m: torch.randn(len(whole.labels), hidden_dim) for m in model.modalities}
    encoded = {m: (x * whole.present[m][:, None]).requires_grad_() for m, x in drawn.items()}

    def run(batch: DialogueBatch) -> Sequence[Any]:
        rows = {m: x[-len(batch.labels) :] for m, x in encoded.items()}
        found = fusion.own(rows, dict(batch.present), batch.layout)
        return found if isinstance(found, tuple) else [found]

    return run


def _check_part(
    name: str, modules: Sequence[nn.Module], run: Run, batch: DialogueBatch, shapes: Sequence[tuple[int, ...]]
) -> None:
    """Check an encoder or a fusion in evaluation and in training.

    Args:
        name: What it is, for messages.
        modules: Its modules.
        run: Returns its outputs; it may return fewer than ``shapes``.
        batch: The batch to try.
        shapes: The shapes of the outputs.
    """
    for training in (False, True):
        seeds = (1, 1) if training else (1, 2)
        first, again = (_outputs(name, modules, run, batch, training=training, seed=seed) for seed in seeds)
        for found, shape in zip(first, shapes, strict=False):
            _check_tensor(name, found, shape)
        same = all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
        when = "training with one seed of torch" if training else "evaluation"
        _require(same, f"{name} must return the same twice in {when}", "it differs", "Draw random numbers from torch")
    _check_gradients(name, modules, list(first) if len(modules) > 1 else [first[0]])
    apart = _outputs(name, modules, run, _alone(batch), training=False)
    together = _outputs(name, modules, run, batch, training=False)
    rows = len(apart[0])
    gap = max(float((x[-rows:] - y).abs().max()) for x, y in zip(together[:1], apart[:1], strict=True))
    _require(
        gap <= _CLOSE,
        f"{name} must give a dialogue the same result whatever else is in the batch",
        f"a dialogue alone differs by {gap:.3g}",
        "Keep dialogues apart by `layout`, and use no statistics of the batch",
    )


def _outputs(
    name: str, modules: Sequence[nn.Module], run: Run, batch: DialogueBatch, *, training: bool, seed: int = 1
) -> Sequence[Any]:
    """Return outputs in a mode, after checking that no buffer changes: ranks would differ."""
    torch.manual_seed(seed)
    before = [buffer.clone() for module in modules for buffer in module.train(training).buffers()]
    with _explained(name), torch.set_grad_enabled(training):
        found = run(batch)
    after = [buffer for module in modules for buffer in module.buffers()]
    _require(
        all(torch.equal(x, y) for x, y in zip(before, after, strict=True)),
        f"{name} must not change its buffers",
        "it does",
        "Use for example LayerNorm in place of BatchNorm, whose statistics differ between workers",
    )
    return found


def _check_tensor(name: str, found: Any, shape: tuple[int, ...]) -> None:
    what = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    right = isinstance(found, Tensor) and found.dtype == torch.float32 and tuple(found.shape) == shape
    _require(right, f"{name} must return {shape} torch.float32", f"returned {what}", "Correct its `forward`")
    _require(
        bool(torch.isfinite(found).all()), f"{name} must return finite values", "some are not", "Correct its `forward`"
    )


def _check_gradients(name: str, modules: Sequence[nn.Module], outputs: Sequence[Tensor]) -> None:
    """Check that each parameter gets a gradient from the outputs: DDP waits for all of them."""
    named = [(key, p) for module in modules for key, p in module.named_parameters() if p.requires_grad]
    moves = all(output.requires_grad for output in outputs)
    _require(moves, f"{name} must let gradients pass", "its output has none", "Remove `detach` and `no_grad`")
    loss = torch.stack([output.square().sum() for output in outputs]).sum()
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True) if named else ()
    without = [key.removeprefix("own.") for (key, _), found in zip(named, gradients, strict=True) if found is None]
    _require(
        not without,
        f"{name} must use each of its parameters in every step",
        f"no gradient reaches {', '.join(without)}",
        "Use them in `forward`, or remove them",
    )


def _trained(config: TrainConfig, features: FeatureInfo, batch: DialogueBatch) -> list[Tensor]:
    """Return the weights and the state of the balance method after a few steps."""
    model, balancer = _model(config, features), make_balancer(config)
    optimizer = make_optimizer(model, learning_rate=config.training.learning_rate, weight_decay=0.0)
    balancer.set_epoch(1)
    for step in range(_STEPS):
        clip, key = config.training.clip_norm, StepKey(seed=0, step=step)
        report = train_step(model, [batch], optimizer, key=key, clip_norm=clip, balancer=balancer, weights=config.loss)
        _check_step(f"The balance method {config.balance.method}", report.metrics, len(model.modalities))
        _require(
            report.status.finite,
            f"Training with {', '.join(config.own_code)} must have finite losses and gradients",
            f"step {step} has others",
            "Correct the class",
        )
    state = balancer.state()
    make_balancer(config).load(state)
    return [p.detach() for p in model.parameters()] + [state[key] for key in sorted(state)]


def _check_step(name: str, metrics: dict[str, Tensor], modalities: int) -> None:
    for needed in ("ratio", "coefficient"):
        found = tuple(metrics[needed].shape) if needed in metrics else "none"
        _require(
            found == (modalities,),
            f"{name} must return a metric `{needed}` of shape ({modalities},) from `scales`",
            f"it is {found}",
            "Extend the result of ada2i.balance.none.NoBalancer.scales",
        )
    sizes = {key: value.numel() for key, value in metrics.items() if value.numel() not in (1, modalities)}
    must = f"{name} must return losses and metrics that are scalars or of shape ({modalities},)"
    _require(not sizes, must, f"found {sizes} values", "Correct `extra_losses` and `scales`")


def _require(holds: bool, must: str, found: str, do: str) -> None:
    if not holds:
        raise ConfigError(f"{must}, but {found}. {do}.")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what code of the caller's own raises into an error that names it."""
    try:
        yield
    except Ada2iError:
        raise
    except Exception as problem:
        reason = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
        raise ConfigError(f"{name} must run on dialogues with missing vectors, but raised {reason}. Correct it.") from (
            problem
        )
