"""A registered model in Python: load it, predict frames with it, save a copy of it."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ada2i import storage, usecases
from ada2i.api.frames import Frame, as_location, is_frame, like
from ada2i.data.parquet import from_parquet
from ada2i.inference.models import load_model
from ada2i.inference.versions import check_code, load_config, open_version
from ada2i.jobs import code as own
from ada2i.prediction import request as prediction
from ada2i.prediction.output import dialogues_of, read_shard
from ada2i.prediction.records import REQUEST, WHOLE, PredictionRequest
from ada2i.prediction.request import PredictSpec
from ada2i.prediction.source import Table, row_order
from ada2i.registry.pull import copy_version
from ada2i.store import Store
from ada2i.training.request import new_run_id

if TYPE_CHECKING:
    from ada2i.batch import DialogueBatch
    from ada2i.config import TrainConfig
    from ada2i.model.ada2i import Ada2I
    from ada2i.registry.versions import Version


def load(
    reference: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, code: Iterable[str] = ()
) -> "LoadedModel":
    """Load a registered version; every byte is checked, and no loaded byte can execute code.

    Args:
        reference: ``MODEL``, ``MODEL@NUMBER`` or ``MODEL@ALIAS``; or the folder of a copy, with a ``/``.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``. A folder does not need it.
        code: Classes outside of ada2i, ``package.module:Class``, that the version's config may name: their code runs.

    Raises:
        NotFoundError: There is no such version.
        IntegrityError: A file differs from the registered one; the message names it.
        ConfigError: The version needs a class that ``code`` does not name.

    Examples:
        >>> import ada2i
        >>> name = ada2i.train("demo", {"training.epochs": 1}, seeds=[1], progress=False).register("doc")
        >>> model = ada2i.load(name)
        >>> model
        LoadedModel(doc@1: text 32, audio 24, visual 20 -> neutral, joy, sadness, anger, surprise, fear)
        >>> model.predict(model.example()).column_names[6:8]
        ['label', 'true_label']
    """
    text = os.fspath(reference)
    if "/" not in text and (isinstance(reference, os.PathLike) or Path(text, "manifest.json").is_file()):
        text = f"./{text}"
    uri, version = open_version(Store.open(None if root is None else os.fspath(root)).root, text)
    model = LoadedModel(uri, version, (code,) if isinstance(code, str) else tuple(code))
    with own.named(own.digests(model.code)):
        check_code(model.config, version)
    if storage.local_path(uri) is None:  # predictions read the files again, so they must be near
        model = _local_copy(model)
    return model


def _local_copy(model: "LoadedModel") -> "LoadedModel":
    """Return a model whose files are in a temporary folder, which is deleted with the model."""
    folder = tempfile.TemporaryDirectory(prefix="ada2i-model-")
    copy = Path(folder.name) / "copy"
    copy_version(model.uri, model.version, copy)
    near = LoadedModel(copy.as_uri(), model.version, model.code)
    weakref.finalize(near, folder.cleanup)
    return near


@dataclass(frozen=True, repr=False, eq=False)
class LoadedModel:
    """A registered model that is loaded.

    Attributes:
        uri: The folder with its files.
        version: Its manifest: name, number, features, scores.
        code: The classes outside of ada2i that its config may name.
    """

    uri: str
    version: "Version"
    code: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, code: Iterable[str] = ()) -> "LoadedModel":
        """Load the copy that ``save_pretrained`` or ``ada2i registry pull`` wrote; arguments and errors as ``load``."""
        return load(f"{os.fspath(folder).rstrip('/')}/", code=code)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Copy the version to a folder: safetensors, config, model card with licences, report; return its path.

        Raises:
            InputError: The folder holds something else.
            AccessError: The folder may not be written.
        """
        return copy_version(self.uri, self.version, Path(folder))

    @property
    def name(self) -> str:
        """The version, as ``MODEL@NUMBER``."""
        return self.version.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, by index."""
        return self.version.features.labels

    @cached_property
    def config(self) -> "TrainConfig":
        """The config that it was trained with."""
        return load_config(self.uri, self.version)

    @cached_property
    def module(self) -> "Ada2I":
        """The torch module, in eval mode, on the CPU; it maps a batch (see ``batch``) to a ``Prediction``."""
        with own.named(own.digests(self.code)):
            return load_model(self.uri, self.version)

    def predict(self, source: Frame | str | os.PathLike[str], *, min_confidence: float = 0.0) -> Frame:
        """Predict every utterance of a frame, a file or a feature set, in this process.

        Args:
            source: A table of utterances: ``dialogue_id``, ``utterance_index``, ``speaker`` (if known, since models
                read who speaks) and the vectors that the model reads; labels are not needed. A frame, the path of a
                table, or the URI of a feature set.
            min_confidence: An utterance whose largest probability is below it has no `label`: null.

        Returns:
            A row per utterance: ``label`` (the predicted class), ``true_label`` (the source's), ``p_<class>`` and
            ``contribution_<modality>``; ``ada2i.prediction.output`` describes every column. For a frame it is a frame
            of the same library with rows in the same order, so join it by position (``dialogue_id`` is text in it);
            else a ``pyarrow.Table`` with dialogues in their order.

        Raises:
            DataError: The source is invalid, or has other features than the model was trained on.
            ConfigError: The model predicts a number, so it has no confidence.
        """
        with as_location(source) as location, tempfile.TemporaryDirectory(prefix="ada2i-") as scratch:
            spec = PredictSpec(
                version=f"{self.uri}/", source=location, code=self.code, local=True, min_confidence=min_confidence
            )
            folder, manifest = usecases.predict(
                spec, Store.open(scratch), hooks=usecases.Hooks(), extraction_run=new_run_id()
            )
            parts = (storage.get(storage.join(folder, name)) for name in sorted(manifest.files))
            found = pa.concat_tables([from_parquet(part) for part in parts])
            if not is_frame(source):
                return found
            order = row_order(Table(location, WHOLE).keys.columns)
            return like(source, found.take(np.argsort(order)))

    def batch(self, source: Frame | str | os.PathLike[str]) -> "DialogueBatch":
        """Return all utterances of a source as one batch, which ``module`` takes; raises as ``predict`` does.

        The features are ``(N, width)`` float32 by modality, with dialogues one after the other in the source's order.
        """
        with as_location(source) as location, tempfile.TemporaryDirectory(prefix="ada2i-") as scratch:
            spec = PredictSpec(version=f"{self.uri}/", source=location, code=self.code, local=True)
            job = prediction.prepare(spec, root=scratch)
            request = PredictionRequest.load(storage.join(job.uri, REQUEST), job.request)
            rows = pa.concat_tables([read_shard(shard, request.modalities) for shard in request.shards])
            dialogues = dialogues_of(rows.combine_chunks(), request.modalities, None)
            return dialogues.batch(np.arange(len(dialogues.lengths)))[1]

    def example(self, utterances: int = 4) -> pa.Table:
        """Return a SYNTHETIC table with the columns that ``predict`` needs: one dialogue of random vectors."""
        random = np.random.default_rng(0)
        widths = {m: self.version.features.widths[m] for m in self.config.model.modalities}
        columns = {"dialogue_id": ["example"] * utterances, "utterance_index": range(utterances)}
        columns["speaker"] = ["AB"[place % 2] for place in range(utterances)]
        columns |= {f"{m}_feat": list(random.standard_normal((utterances, w))) for m, w in widths.items()}
        return pa.table(columns)

    def __repr__(self) -> str:
        widths = self.version.features.widths
        inputs = ", ".join(f"{modality} {widths[modality]}" for modality in self.config.model.modalities)
        return f"LoadedModel({self.name}: {inputs} -> {', '.join(self.labels)})"
