"""From a shard of the source to a part of the prediction: a pure function of both and of the model.

A part holds the shard's utterances in the shard's order, one row each:

================================  =====================================================================================
``dialogue_id``, ``split``,       as in the source; ``split``, ``speaker`` and ``text`` null if absent
``utterance_index``,
``utterance_id``,
``speaker``, ``text``
``label``                         the predicted class; null if its probability is below the request's minimum confidence
``true_label``                    the source's class; null if absent
``value``                         of regression only: the predicted number, float32; ``label`` is the class of its sign
``p_<class>``                     probability of each of the model's classes, float32, with the version's temperature;
                                  absent in regression
``votes``                         the sum of the modalities' votes for ``label``, float32: its logit (or, in preset
                                  whose logits are an MLP's output of the votes, the MLP's input)
``contribution_<modality>``       the modality's part of ``votes``, float32: its weighted vote. The contributions and
                                  the classifier's bias for ``label`` (if it has one) sum to ``votes``; a modality
                                  that is missing contributes 0 if the model knows that it is missing. With a fusion of
                                  the caller's own, the vote of the modality alone, which need not sum to ``votes``
``model``, ``version``            the registered version that predicted
================================  =====================================================================================

Shape letters in this file:
    N utterances of the shard     D dialogues     C classes of the model     L classes of the source
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.data import schema
from ada2i.data.parquet import to_parquet
from ada2i.modalities import Modality
from ada2i.prediction.records import WHOLE, Matrix, PredictionRequest, Shard
from ada2i.records import UNLABELLED

if TYPE_CHECKING:
    from ada2i.inference.predict import Dialogues, Inference, Ints

_PLAIN = ("dialogue_id", "utterance_index", "utterance_id", "speaker", "text", "label", "split")


def read_shard(shard: Shard, modalities: Sequence[Modality]) -> pa.Table:
    """Read a shard's plain columns and some of its vectors.

    Raises:
        IntegrityError: Its bytes differ from the request's digest.
        DataError: It is damaged, or lacks a column.
    """
    data = storage.get_checked(shard.uri, size=shard.size, sha256=shard.sha256)
    columns = [*_PLAIN, *(schema.vector_column(m) for m in modalities)]
    return schema.open_parquet(data, shard.uri).read(columns).combine_chunks()


def dialogue_lengths(rows: pa.Table) -> "tuple[list[str], Ints]":
    """Return the split and the length ``(D,)`` of each dialogue of a shard."""
    keys = [schema.codes(rows[name]) for name in ("split", "dialogue_id")]
    new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    edges = np.concatenate([[0], np.flatnonzero(new) + 1, [rows.num_rows]])
    return [str(name) for name in rows["split"].take(edges[:-1]).to_pylist()], np.diff(edges)


def dialogues_of(rows: pa.Table, modalities: Sequence[Modality], padded: "Ints | None") -> "Dialogues":
    """Return a shard's dialogues as the model's input."""
    from ada2i.inference.predict import Dialogues

    vectors = {m: schema.unpack_vectors(rows[schema.vector_column(m)]) for m in modalities}
    _, lengths = dialogue_lengths(rows)
    return Dialogues(
        features={m: values for m, (values, _) in vectors.items()},
        present={m: present for m, (_, present) in vectors.items()},
        speakers=schema.by_appearance(schema.codes(rows["speaker"]), lengths),
        lengths=lengths,
        padded=padded,
    )


def table_of(rows: pa.Table, inference: "Inference", request: PredictionRequest) -> pa.Table:
    """Return the part of a shard; see the head of this file."""
    model, number = request.version.model, rows.num_rows
    names = request.version.features.labels
    columns: dict[str, Any] = {name: rows[name] for name in ("dialogue_id", "utterance_index", "utterance_id")}
    columns |= {"split": _null_where_empty(rows["split"]), "speaker": rows["speaker"], "text": rows["text"]}
    answers = columns_of(inference, names, request.modalities, request.min_confidence)
    columns["label"] = answers.pop("label")
    label = rows["label"].combine_chunks().fill_null(UNLABELLED).to_numpy()
    columns["true_label"] = _named(pa.array(label, pa.int32(), mask=label == UNLABELLED), request.labels)
    columns |= answers
    columns["model"] = _named(pa.array(np.zeros(number, np.int32)), (model,))
    columns["version"] = pa.array(np.full(number, request.version.number, np.int32))
    return pa.table(columns)


def columns_of(
    inference: "Inference", names: Sequence[str], modalities: Sequence[Modality], least: float
) -> dict[str, Any]:
    """Return what is predicted for ``N`` utterances, by column; see the head of this file.

    Args:
        inference: The prediction.
        names: The model's classes, by index.
        modalities: The modalities that the model reads.
        least: An utterance whose largest probability is below it gets no label.
    """
    columns: dict[str, Any] = {
        "label": _named(pa.array(inference.labels, pa.int32(), mask=~kept(inference, least)), names)
    }
    if inference.values is not None:
        columns["value"] = inference.values
    else:
        columns |= {f"p_{name}": inference.probabilities[:, place] for place, name in enumerate(names)}
    columns["votes"] = inference.votes
    return columns | {f"contribution_{m}": inference.contributions[:, place] for place, m in enumerate(modalities)}


def kept(inference: "Inference", least: float) -> npt.NDArray[np.bool_]:
    """Return the utterances that get a label, ``(N,)``: their largest probability reaches the minimum confidence."""
    found: npt.NDArray[np.bool_] = inference.probabilities.max(axis=1) >= least
    return found


def confusion(rows: pa.Table, inference: "Inference", request: PredictionRequest) -> dict[str, Matrix]:
    """Count labelled and predicted utterances ``(L, C)`` by split; rows: true class, columns: predicted class."""
    shape = len(request.labels), inference.probabilities.shape[1]
    label = rows["label"].combine_chunks()
    known = (label.fill_null(UNLABELLED).to_numpy() != UNLABELLED) & kept(inference, request.min_confidence)
    cells = label.fill_null(0).to_numpy().astype(np.int64) * shape[1] + inference.labels
    splits = np.array(rows["split"].to_pylist())
    counts = {}
    for split in dict.fromkeys(splits[known].tolist()):
        found = np.bincount(cells[known & (splits == split)], minlength=shape[0] * shape[1]).reshape(shape)
        counts[split or WHOLE] = tuple(map(tuple, found.tolist()))
    return counts


def encode(part: pa.Table, compression: Literal["zstd", "none"] = "zstd") -> bytes:
    """Return rows as Parquet; equal rows give equal bytes, since every option that shapes them is fixed here."""
    numbers = (pa.types.is_floating, pa.types.is_fixed_size_list)
    words = [field.name for field in part.schema if not any(is_number(field.type) for is_number in numbers)]
    return to_parquet(
        part.combine_chunks(),
        row_group_size=max(part.num_rows, 1),
        version="2.6",
        data_page_version="1.0",
        compression=compression,
        use_dictionary=words,
        write_statistics=words,
    )


def _named(index: Any, names: Sequence[str]) -> Any:
    return pa.DictionaryArray.from_arrays(index, pa.array(names, pa.string()))


def _null_where_empty(names: Any) -> Any:
    return pc.if_else(pc.equal(names, pa.scalar("")), pa.scalar(None, pa.string()), names)
