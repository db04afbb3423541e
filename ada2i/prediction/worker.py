"""The worker of a prediction: it loads the model once, and turns shards into parts."""

import numpy as np
import pyarrow as pa
import torch

from ada2i import devices, storage
from ada2i.inference.models import load_model
from ada2i.inference.predict import Dialogues, Inference, infer, slots_on
from ada2i.inference.sums import Floats, dialogue_sums
from ada2i.jobs import code
from ada2i.prediction.output import (
    confusion,
    dialogue_lengths,
    dialogues_of,
    encode,
    kept,
    read_shard,
    table_of,
)
from ada2i.prediction.records import DONE, Part, PredictionRequest, part_name


class Worker:
    """Predicts with one thread: with more threads, the last bits of results vary."""

    def __init__(self, uri: str, request: PredictionRequest, device: str, share: float = 1.0) -> None:
        torch.set_num_threads(1)
        self._uri, self._request, self._device = uri, request, torch.device(device)
        devices.prepare(self._device)
        self._slots = slots_on(self._device, request.batch, share=share)
        with code.named(request.own_code):
            self._model = load_model(request.version_uri, request.version).to(self._device)

    def lengths(self, number: int) -> tuple[int, list[str], list[int]]:
        """Return a shard's number, and the split and length of each of its dialogues."""
        splits, lengths = dialogue_lengths(read_shard(self._request.shards[number], ()))
        return number, splits, lengths.tolist()

    def read(self, number: int, padded: list[int] | None) -> tuple[pa.Table, Dialogues]:
        """Return a shard's rows, and its dialogues as the model reads them; for ``padded`` see ``predict``."""
        request = self._request
        rows = read_shard(request.shards[number], request.modalities)
        widths = None if padded is None else np.array(padded, np.int64)
        return rows, dialogues_of(rows, request.modalities, widths)

    def infer(self, dialogues: Dialogues) -> tuple[Inference, Floats]:
        """Predict dialogues; return the answers, and the sums of each dialogue, ``(D, K)``."""
        inference = infer(self._model, dialogues, batch=self._slots, device=self._device)
        return inference, dialogue_sums(self._model, dialogues, inference)

    def predict(self, number: int, padded: list[int] | None) -> int:
        """Predict a shard and write its part.

        Args:
            number: The shard's number.
            padded: The length to which each dialogue is padded, if the model attends to padding.

        Returns:
            The number of utterances.
        """
        request = self._request
        rows, dialogues = self.read(number, padded)
        inference, sums = self.infer(dialogues)
        data, name = encode(table_of(rows, inference, request)), part_name(number)
        shown = inference.labels[kept(inference, request.min_confidence)]
        counts = torch.bincount(torch.from_numpy(shown), minlength=inference.probabilities.shape[1])
        part = Part(
            name=name,
            size=len(data),
            sha256=storage.digest(data),
            rows=rows.num_rows,
            dialogues=len(dialogues.lengths),
            predicted=tuple(counts.tolist()),
            confusion=confusion(rows, inference, request),
            withheld=rows.num_rows - len(shown),
            sums=tuple(sums.sum(axis=0).tolist()),
        )
        storage.put(storage.join(request.out, name), data)
        # A crash here leaves a part without a record: the shard is predicted again, to the same bytes.
        storage.put(done_uri(self._uri, number), part.stored())
        return rows.num_rows


def done_uri(uri: str, number: int) -> str:
    """Return the URI of the record that marks a part as written."""
    return storage.join(uri, DONE, f"{number:05d}.json")
