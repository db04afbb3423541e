"""Steps captured once for each padded shape and replayed, so that a GPU need not wait for the host's launches.

A CUDA graph repeats the launches of a step on the same memory. Whatever differs between steps is therefore a tensor
that is filled before: batch, learning rate, noise. A graph is used only if its first replay gives the weights that the
same step gives without it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ada2i.balance.base import Balancer, StepInfo
from ada2i.balance.noise import stream_key
from ada2i.batch import DialogueBatch, Layout, Part
from ada2i.checkpoint import TrainState
from ada2i.config import LossConfig, TrainConfig
from ada2i.fast.noise import MovingWindows
from ada2i.training import distributed
from ada2i.training.padding import Shape, pad_batch, padded_shape
from ada2i.training.status import StepKey, StepStatus
from ada2i.training.step import StepReport, compute_step, seed_dropout, unwrap
from ada2i.training.task import Task

log = logging.getLogger(__name__)

_LONGEST = 256  # utterances; longer dialogues are computed in blocks, whose number is not fixed
_METHODS = ("none", "ada2i", "unimodal")  # methods that read nothing but tensors in a step
_ENCODERS = ("relational", "context", "transformer")
_FIELDS = ("labels", "speakers", "targets", "real", "global_utterances", "labelled", "targeted")
_OF_LAYOUT = ("lengths_tensor", "dialogue", "slots", "occupied", "one_hot", "slots_of_parts")
_OF_PART = ("lengths_tensor", "occupied")

Outputs = tuple[dict[str, Tensor], Tensor]
Run = Callable[[], Outputs]
Capture = Callable[[Run], tuple[Outputs, Callable[[], None]]]  # captures a run: its outputs, and what repeats it


def can_capture(config: TrainConfig) -> bool:
    """Return whether a config's step reads nothing that differs between steps but tensors."""
    model = config.model
    padded = model.encoder.attend_to_padding or (model.afw.average_padding and config.has_afw)
    own = model.fusion != "ada2i" or model.encoder.kind not in _ENCODERS
    return config.balance.method in _METHODS and not padded and not own and not config.loss.distillation


class GpuCapture:
    """Captures runs as CUDA graphs that share one memory pool."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> tuple[Outputs, Callable[[], None]]:
        """See ``Capture``."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            outputs = run()
        return outputs, graph.replay


class StepGraphs:
    """Takes steps by replaying graphs.

    Args:
        network: The model; there is one rank.
        optimizer: The optimizer from ``make_optimizer``, after a resume.
        balancer: The method that balances modalities.
        clip_norm: See ``train_step``.
        weights: See ``train_step``.
        class_weights: See ``train_step``.
        batch_dialogues: Dialogues of a whole batch.
        capture: Captures a run.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Adam,
        balancer: Balancer,
        *,
        clip_norm: float,
        weights: LossConfig,
        class_weights: Tensor | None,
        batch_dialogues: int,
        capture: Capture,
    ) -> None:
        self.network, self.optimizer, self.balancer = network, optimizer, balancer
        self.clip_norm, self.weights, self.class_weights = clip_norm, weights, class_weights
        self.batch_dialogues, self.capture = batch_dialogues, capture
        self.graphs: dict[tuple[Shape, bool], tuple[dict[str, Tensor], Outputs, Callable[[], None]]] = {}
        self.usable = True
        model = unwrap(network)
        device = next(model.parameters()).device
        self.rate, self.leaving = torch.zeros((), device=device), torch.zeros((), device=device)
        self.names = {name: p.numel() for name, p in model.named_parameters() if name.startswith("encoders.")}
        self.draws = MovingWindows(self.names, device)
        for group in optimizer.param_groups:
            group["capturable"] = device.type == "cuda"

    def step(self, parts: Sequence[DialogueBatch], key: StepKey, *, leaving: bool) -> StepReport | None:
        """Take a step; None, with nothing changed, if it must be taken without a graph."""
        shape = padded_shape(parts[0].layout.lengths, self.batch_dialogues)
        if not self.usable or len(parts) > 1 or shape.length > _LONGEST:
            return None
        padded = pad_batch(parts[0], shape)
        self._fill(key, leaving=leaving)
        chosen = (shape, bool(getattr(self.balancer, "active", True)))
        if chosen not in self.graphs:
            self.graphs[chosen] = self._captured(padded, key)
        inputs, (metrics, values), replay = self.graphs[chosen]
        if not self.usable:
            return None
        for name, tensor in tensors_of(padded).items():
            inputs[name].copy_(tensor)
        seed_dropout(key)
        replay()
        return StepReport(metrics, StepStatus.of(values, key))

    def _fill(self, key: StepKey, *, leaving: bool) -> None:
        self.rate.fill_(self.optimizer.param_groups[0]["lr"])
        self.leaving.fill_(float(leaving))
        self.draws.move({name: stream_key(key.seed, key.step, name) for name in self.names})

    def _captured(self, padded: DialogueBatch, key: StepKey) -> tuple[dict[str, Tensor], Outputs, Callable[[], None]]:
        """Capture a step on a copy of a padded batch, and compare a replay with the step itself."""
        fixed = fixed_copy(padded)
        self.network.train()
        self.balancer.start_step(StepInfo(unwrap(self.network), key.seed, key.step, self.class_weights))

        def run() -> Outputs:
            return compute_step(
                self.network,
                [fixed],
                self.optimizer,
                key=key,
                clip_norm=self.clip_norm,
                balancer=self.balancer,
                weights=self.weights,
                class_weights=self.class_weights,
                leaving=self.leaving,
                draws=self.draws,
            )

        with self._rate_on_device():
            outputs, replay = self._checked(run, key)
        return tensors_of(fixed), outputs, replay

    def _checked(self, run: Run, key: StepKey) -> tuple[Outputs, Callable[[], None]]:
        """Capture a run, and mark graphs as not usable if a replay does not change the weights as the run does."""
        before = self._state(run)
        with _side_stream(self.rate.device):
            seed_dropout(key)
            run()
        plain = self._state(run)
        self._restore(before)
        outputs, replay = self.capture(run)
        self._restore(before)
        seed_dropout(key)
        replay()
        pairs = zip(plain, self._state(run), strict=True)
        self._restore(before)
        self.usable = all(torch.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True) for one, other in pairs)
        if not self.usable:
            log.warning("A captured step differs from the step itself on this device. Steps are taken without graphs.")
        return outputs, replay

    @contextmanager
    def _rate_on_device(self) -> Iterator[None]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        try:
            yield
        finally:
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        held = self.optimizer.state
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        states = [held[p][name] for p in parameters for name in sorted(held.get(p, {}))]
        return [*(p.data for p in parameters), *states, self.optimizer.found_inf]  # type: ignore[attr-defined]

    def _state(self, run: Run) -> list[Tensor]:
        """Return copies of all tensors that a step changes; an optimizer without a state gets that of step 0 first."""
        if not self.optimizer.state:
            weights = [p.detach().clone() for group in self.optimizer.param_groups for p in group["params"]]
            run()
            for tensor in self._tensors()[len(weights) :]:
                tensor.zero_()
            for tensor, weight in zip(self._tensors(), weights, strict=False):
                tensor.copy_(weight)
        return [tensor.clone() for tensor in self._tensors()]

    def _restore(self, state: list[Tensor]) -> None:
        for tensor, stored in zip(self._tensors(), state, strict=True):
            tensor.copy_(stored)


def graphs_for(task: Task, state: TrainState, network: nn.Module) -> StepGraphs | None:
    """Return the graphs of a seed's training; None: its steps are taken without."""
    config = task.config
    if not config.resources.cuda_graphs or task.device.type != "cuda" or distributed.world_size() > 1:
        return None
    if not can_capture(config):
        log.warning("`resources.cuda_graphs` has no effect: steps of this encoder, fusion or balance method vary.")
        return None
    return StepGraphs(
        network,
        state.optimizer,
        state.balancer,
        **task.losses,
        batch_dialogues=config.training.batch_dialogues,
        capture=GpuCapture(),
    )


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """Compute on another stream on a GPU, as torch requires before a capture."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def tensors_of(batch: DialogueBatch) -> dict[str, Tensor]:
    """Return all tensors of a padded batch by name, those of its layout included."""
    (part,) = batch.layout.parts
    found: dict[str, Tensor | None] = {f"features.{m}": x for m, x in batch.features.items()}
    found |= {f"present.{m}": x for m, x in batch.present.items()}
    found |= {name: getattr(batch, name) for name in _FIELDS}
    found |= {f"layout.{name}": getattr(batch.layout, name) for name in _OF_LAYOUT}
    found |= {f"part.{name}": getattr(part.layout, name) for name in _OF_PART} | {"part.rows": part.rows}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def fixed_copy(batch: DialogueBatch) -> DialogueBatch:
    """Return a copy of a padded batch whose tensors, those of its layout included, can be filled for other batches."""
    copies = {name: tensor.clone() for name, tensor in tensors_of(batch).items()}
    layout = Layout(batch.layout.lengths, batch.layout.padded_length, batch.layout.device, batch.layout.speakers)
    inner = Layout(layout.lengths, layout.padded_length, layout.device)
    inner.__dict__.update({name: copies[f"part.{name}"] for name in _OF_PART})  # values of cached properties
    layout.__dict__.update({name: copies[f"layout.{name}"] for name in _OF_LAYOUT})
    layout.__dict__["parts"] = (Part(inner, copies["part.rows"]),)
    fields: dict[str, Any] = {name: copies.get(name) for name in _FIELDS}
    return replace(
        batch,
        features={m: copies[f"features.{m}"] for m in batch.features},
        present={m: copies[f"present.{m}"] for m in batch.present},
        layout=layout,
        **fields,
    )
