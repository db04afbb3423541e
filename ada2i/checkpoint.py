"""Checkpoints: folders that are complete or invisible, and that load without executing anything.

`<base>/<step>/` holds weights and optimizer state as safetensors and ``state.json``; ``manifest.json``, written last,
records the size and digest of each and makes the checkpoint exist. Each file's name begins with its digest, so that
two attempts at the same step never overwrite each other's files; the first manifest stays. All randomness of a run is
keyed by (seed, step, rank), so the position is the random state, too. Weights without the optimizer are written the
same way.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field, JsonValue, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i import storage
from ada2i.balance.base import Balancer
from ada2i.config import TrainConfig
from ada2i.errors import DataError, DivergenceError
from ada2i.presets import explain
from ada2i.records import (
    EpochRecord,
    FeatureInfo,
    FileEntry,
    FolderManifest,
    Record,
    Scores,
    get_folder_file,
    put_folder_file,
)

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.json", "manifest.json"
BALANCE = "balance.safetensors"  # the balancer's state, if it has one
OPTIMIZER = "optimizer.{slot}.safetensors"  # one file per optimizer slot
_SLOTS = ("exp_avg", "exp_avg_sq", "step")  # Adam's
_DIGITS = 16  # of a file's digest, at the beginning of its name


class Rng(Record):
    """The random state: every stream of step s on rank r is keyed by (seed, s, r or parameter name)."""

    seed: int
    step: int


# Sums in checkpoints that stored them without names: their order and numbers of values; 0: one per modality.
_UNNAMED = {
    "classification_loss": 1,
    "modal_loss": 1,
    "feature_loss": 1,
    "loss": 1,
    "gradient_norm": 1,
    "encoder_gradient_norm": 0,
    "ratio": 0,
    "coefficient": 0,
    "gate_share": 0,
}


class EpochPart(Record):
    """The completed steps of the current epoch.

    Attributes:
        steps: Their number.
        sums: By metric (``training.metrics``), its sum over these steps, one value or one per modality.
        seconds: Their duration.
    """

    steps: int = 0
    sums: dict[str, list[float]] = Field(default={})
    seconds: float = 0.0

    @field_validator("sums", mode="before")
    @classmethod
    def _name(cls, sums: object) -> object:
        if not isinstance(sums, list | tuple):
            return sums
        values = list(sums)
        modalities = (len(values) - sum(_UNNAMED.values())) // sum(size == 0 for size in _UNNAMED.values())
        sizes = {name: size or modalities for name, size in _UNNAMED.items()} if values else {}
        return {name: [values.pop(0) for _ in range(size)] for name, size in sizes.items()}


class TrainCursor(Record):
    """The position of a seed's training; with weights, optimizer and balancer, all that a resumed run needs."""

    schema_version: Literal[2] = 2
    config: TrainConfig
    features: FeatureInfo
    rng: Rng
    epoch: int  # completed epochs
    step: int  # completed optimizer steps, including those of the current epoch
    best_epoch: int
    best_step: int
    best_dev: Scores | None
    stale_epochs: int  # epochs since the best
    history: tuple[EpochRecord, ...]
    part: EpochPart = EpochPart()

    def within(self, part: EpochPart) -> Self:
        """Return the cursor after some steps of the current epoch; this cursor is at or before that position."""
        step = self.step - self.part.steps + part.steps
        return self.model_copy(update={"rng": Rng(seed=self.rng.seed, step=step), "step": step, "part": part})

    def after_epoch(self, record: EpochRecord, dev: Scores, *, best: bool) -> Self:
        """Return the cursor at the end of the current epoch, whose weights are the best so far or not."""
        changed: dict[str, Any] = {
            "epoch": record.epoch,
            "stale_epochs": self.stale_epochs + 1,
            "history": (*self.history, record),
            "part": EpochPart(),
        }
        if best:
            changed |= {"stale_epochs": 0, "best_epoch": record.epoch, "best_step": record.step, "best_dev": dev}
        return self.model_copy(update=changed)


class _State(Record):
    progress: TrainCursor
    param_groups: list[dict[str, JsonValue]]
    scheduler: dict[str, JsonValue]  # empty without one


@dataclass(frozen=True)
class TrainState:
    """Everything that training changes; the scheduler is None unless `training.schedule` is plateau."""

    model: nn.Module
    optimizer: torch.optim.Adam
    scheduler: ReduceLROnPlateau | None
    balancer: Balancer


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint in memory, which training does not change any more.

    Attributes:
        progress: Its cursor.
        tensors: By file, the tensors by name.
        state: The bytes of ``state.json``.
    """

    progress: TrainCursor
    tensors: dict[str, dict[str, Tensor]]
    state: bytes


def checkpoint_uri(base: str, step: int) -> str:
    """Return a checkpoint's folder."""
    return storage.join(base, f"{step:09d}")


def save(base: str, state: TrainState, progress: TrainCursor) -> str:
    """Write the checkpoint of the current step and return its URI."""
    return write(base, take(state, progress))


def take(state: TrainState, progress: TrainCursor, *, optimizer: bool = True, over: Snapshot | None = None) -> Snapshot:
    """Copy a checkpoint's contents into this machine's memory.

    Args:
        state: What to copy.
        progress: The cursor.
        optimizer: Whether the tensors of optimizer and balancer are copied; training cannot be resumed without them.
        over: An old snapshot whose memory is reused.

    Raises:
        DivergenceError: A number of the cursor is not finite, so training could not resume from it.
    """
    _check_finite(progress)
    held = state.optimizer.state_dict()
    tensors = {WEIGHTS: dict(state.model.state_dict())}
    if optimizer:
        tensors |= {OPTIMIZER.format(slot=slot): found for slot, found in _by_slot(held["state"]).items()}
        if balance := state.balancer.state():
            tensors[BALANCE] = balance
    stored = _State(
        progress=progress,
        param_groups=[_plain(group) for group in held["param_groups"]],
        scheduler=_scheduler_state(state.scheduler) if state.scheduler else {},
    )
    old = over.tensors if over else {}
    copies = {name: _copied(found, old.get(name, {})) for name, found in tensors.items()}
    return Snapshot(progress, copies, stored.to_json())


def _check_finite(progress: TrainCursor) -> None:
    try:
        json.dumps(progress.model_dump(), allow_nan=False)
    except ValueError as problem:
        raise DivergenceError(
            f"The metrics up to step {progress.step} of seed {progress.rng.seed} must be finite to be kept in a "
            "checkpoint, but are not. Lower `training.learning_rate`.",
            seed=progress.rng.seed,
            step=progress.step,
        ) from problem


def write(base: str, snapshot: Snapshot) -> str:
    """Write a snapshot and return its URI.

    A complete checkpoint is not written again: another attempt at the same step would write the same weights. Such an
    attempt can be a writer that was given up and finishes late.
    """
    uri = checkpoint_uri(base, snapshot.progress.step)
    if is_complete(uri):
        return uri
    # One file at a time: only one of them is in memory as bytes, in addition to the snapshot.
    entries = dict(_put(uri, name, save_tensors(snapshot.tensors[name])) for name in sorted(snapshot.tensors))
    entries |= [_put(uri, STATE, snapshot.state)]
    # A crash up to here leaves a folder without manifest. It is never loaded; it is completed when the step is saved
    # again, and otherwise deleted by the next sweep.
    place, manifest = storage.join(uri, MANIFEST), FolderManifest(files=entries).stored()
    if not storage.put_if_absent(place, manifest) and not is_complete(uri):
        storage.put(place, manifest)  # that one came from an older attempt, whose files were deleted before
    return uri


def is_complete(uri: str) -> bool:
    """Return whether a checkpoint's manifest, and all files that it names, exist.

    An attempt that lost its lease can write its manifest after a newer one has deleted its files.
    """
    place = storage.join(uri, MANIFEST)
    try:
        files = FolderManifest.load(place).files if storage.exists(place) else None
    except DataError:
        return False
    return files is not None and all(storage.exists(storage.join(uri, name)) for name in files)


def _put(uri: str, name: str, data: bytes) -> tuple[str, FileEntry]:
    stored = f"{storage.digest(data)[:_DIGITS]}-{name}"
    return stored, put_folder_file(uri, stored, data)


def sweep(base: str, keep: Collection[int], *, later: bool = False) -> None:
    """Delete the checkpoints, and remains of killed writes, of all steps but some.

    Args:
        base: The checkpoints' folder.
        keep: The steps whose checkpoints stay.
        later: Whether steps after the last of ``keep`` are deleted as well: of an attempt that has no right to them.
    """
    for step in _steps(base):
        if step not in keep and (later or step < max(keep)):
            # Manifest first: a crash in between leaves an invisible folder, which the next sweep deletes.
            storage.delete(storage.join(checkpoint_uri(base, step), MANIFEST))
            storage.delete_folder(checkpoint_uri(base, step))


def delete_after(base: str, step: int) -> None:
    """Delete the checkpoints of all steps after one."""
    sweep(base, [found for found in _steps(base) if found <= step], later=True)


def complete_steps(base: str) -> list[int]:
    """Return the steps of all complete checkpoints, the newest first."""
    return [s for s in reversed(_steps(base)) if storage.exists(storage.join(checkpoint_uri(base, s), MANIFEST))]


def latest_step(base: str) -> int | None:
    """Return the step of the newest complete checkpoint, or None."""
    return next(iter(complete_steps(base)), None)


def _steps(base: str) -> list[int]:
    """Return the steps of all checkpoints, complete or not, in ascending order."""
    # On S3 not the folders: some servers list empty ones, which each sweep would delete again.
    on_s3 = storage.local_path(base) is None
    names = {name.partition("/")[0] for name in (storage.objects(base) if on_s3 else storage.children(base))}
    return sorted(int(name) for name in names if name.isdigit())


def check(uri: str) -> TrainCursor:
    """Read all files of a checkpoint, check them against their digests, and return its cursor.

    Raises:
        NotFoundError: A file is missing.
        IntegrityError: A file differs from its digest.
        DataError: The checkpoint is of another schema version.
    """
    for name, entry in FolderManifest.load(storage.join(uri, MANIFEST)).files.items():
        get_folder_file(uri, name, entry)
    return load_progress(uri)


def restore(uri: str, state: TrainState) -> TrainCursor:
    """Load a checkpoint into model, optimizer, scheduler and balancer; return its cursor.

    Raises:
        IntegrityError: A file differs from its digest.
        DataError: The checkpoint is of another model or schema version, or lacks a part.
    """
    stored = _load_state(uri)
    slots = _read_slots(uri)
    try:
        state.model.load_state_dict(load_weights(uri))
        state.optimizer.load_state_dict({"state": slots, "param_groups": stored.param_groups})
    except (RuntimeError, ValueError) as problem:
        raise DataError(
            f"{uri} must hold the weights and optimizer state of this run's model, but: {problem} Resume with the "
            "config of the run that wrote it.",
            uri=uri,
        ) from problem
    if state.scheduler:  # older checkpoints also store an unused scheduler's state
        state.scheduler.load_state_dict(stored.scheduler)
    balance = FolderManifest.load(storage.join(uri, MANIFEST)).stored_name(BALANCE)
    state.balancer.load(_read_tensors(uri, BALANCE) if balance else {})
    return stored.progress


def load_weights(uri: str) -> dict[str, Tensor]:
    """Return a checkpoint's model weights."""
    return _read_tensors(uri, WEIGHTS)


def load_progress(uri: str) -> TrainCursor:
    """Return a checkpoint's cursor, with the resolved config."""
    return _load_state(uri).progress


def _load_state(uri: str) -> _State:
    try:
        return _State.model_validate_json(_read(uri, STATE))
    except ValidationError as problem:
        raise DataError(
            f"{uri}/{STATE} must be of schema version 2, but: {explain(problem)[0]}. Resume with the version of ada2i "
            "that wrote it.",
            uri=uri,
        ) from problem


def _read_tensors(uri: str, name: str) -> dict[str, Tensor]:
    try:
        return load_tensors(_read(uri, name))
    except SafetensorError as problem:
        raise DataError(
            f"{uri}/{name} must be safetensors, but: {problem}. Other formats are not loaded; train again.", uri=uri
        ) from problem


def _read(uri: str, name: str) -> bytes:
    manifest = FolderManifest.load(storage.join(uri, MANIFEST))
    stored = manifest.stored_name(name)
    if stored is None:
        raise DataError(
            f"{uri} must be a checkpoint with {name}, but its manifest lists only "
            f"{', '.join(sorted(manifest.files))}. Resume from another checkpoint, or train again.",
            uri=uri,
        )
    return get_folder_file(uri, stored, manifest.files[stored])


def _scheduler_state(scheduler: ReduceLROnPlateau) -> dict[str, JsonValue]:
    # Only what changes; the rest comes from the config. The best loss is infinite before the first epoch, which JSON
    # cannot store; a new scheduler starts with that value.
    moving = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
    found = scheduler.state_dict()
    return _plain({key: found[key] for key in moving if found[key] != math.inf})


def _plain(values: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return values in the types that JSON has: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _by_slot(state: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, Tensor]]:
    """Return an optimizer's tensors by slot, then by the parameter's index."""
    slots: dict[str, dict[str, Tensor]] = {}
    for index, tensors in state.items():
        for slot, value in tensors.items():
            slots.setdefault(slot, {})[str(index)] = torch.as_tensor(value)
    return slots


def _read_slots(uri: str) -> dict[int, dict[str, Tensor]]:
    """Return an optimizer's tensors by the parameter's index, then by slot: the inverse of ``_by_slot``."""
    state: dict[int, dict[str, Tensor]] = {}
    for slot in _SLOTS:
        for index, tensor in _read_tensors(uri, OPTIMIZER.format(slot=slot)).items():
            state.setdefault(int(index), {})[slot] = tensor
    return state


def _copied(tensors: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    copies = {}
    for name, tensor in tensors.items():
        place = old.get(name)
        if place is None or place.shape != tensor.shape or place.dtype != tensor.dtype:
            place = torch.empty(tensor.shape, dtype=tensor.dtype)
        copies[name] = place.copy_(tensor.detach())
    return copies
