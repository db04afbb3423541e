"""Builds a feature set from a corpus and its vectors: a pure function of both."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.audit.measures import measures, without_probes
from ada2i.data import schema
from ada2i.data.manifest import FeatureSet
from ada2i.data.parquet import to_parquet
from ada2i.data.provenance import Origin
from ada2i.data.shards import Extraction
from ada2i.data.splits import GATE_SHARE
from ada2i.errors import DataError
from ada2i.extraction import report
from ada2i.extraction.card import render_card
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.plan import inputs_digest, item_of
from ada2i.extraction.report import Extracted, Problem
from ada2i.extraction.utterance import Clip, Corpus
from ada2i.importers.checks import check_keys, check_order, with_splits
from ada2i.importers.import_rows import import_rows, with_cuts
from ada2i.importers.labels import classes
from ada2i.importers.rows import File, Rows
from ada2i.modalities import Modality
from ada2i.records import Recipe

PROVENANCE = "provenance.parquet"
PROBLEMS = "problems.parquet"
AUDIT = "audit.json"
CARD = "README.md"
TABLE = "vectors.parquet"
RECIPE = "recipe"  # key in the table's schema


def check_corpus(corpus: Corpus, *, labelled: bool = True, gate_share: float = GATE_SHARE) -> None:
    """Check, before anything is encoded, that the utterances of a corpus can become a feature set.

    Args:
        corpus: Its utterances.
        labelled: Whether they must have splits and labels of two classes; false if they will be predicted.
        gate_share: Share of train's dialogues with a time that becomes the gate.

    Raises:
        DataError: A split is missing, a label or split is unknown, train is too small, an utterance's index in its
            dialogue is wrong, or the corpus's name is a path.
    """
    if not corpus.name.strip() or re.search(r"[/\\]", corpus.name):
        raise DataError(
            f"The name of a corpus must be neither empty nor a path, but is {corpus.name!r}. Correct `name` in "
            "corpus.json, or choose another name with `--dataset`.",
            uri=corpus.source,
            field="dataset",
        )
    rows = _rows(corpus, {})
    if not labelled:
        check_keys(rows, ("dialogue_id", "utterance_index"))
        check_order(rows)
        return
    check_keys(rows)
    rows = with_splits(rows)
    check_order(rows)
    classes(rows, corpus.labels or None)
    with_cuts(rows, gate_share)


def publish(
    root: str, corpus: Corpus, extracted: Sequence[Extracted], config: ExtractionConfig, *, kind: str, log: str
) -> str:
    """Write a feature set, unless the same one exists already, and return its URI.

    A modality without a single vector is left out.

    Args:
        root: The storage root.
        corpus: The corpus, as its reader returned it.
        extracted: The outcomes, by modality.
        config: The policy, and the settings that decided the vectors.
        kind: The kind of the corpus's reader.
        log: Folder that gets the list of all problems, whether or not the set is published.

    Raises:
        DataError: Too many clips are unreadable, there is no vector at all, or the corpus cannot be a feature set.
    """
    problems = report.problems_of(corpus, extracted)
    held = _held(corpus, extracted, problems, config, listed=storage.join(log, PROBLEMS))
    encoders = {each.plan.modality: each.encoder.digest() for each in extracted}

    def extra_files(features: FeatureSet, rows: pa.Table) -> Mapping[str, bytes]:
        audit = without_probes(measures(features))
        audit = audit.model_copy(update={"location": f"{features.manifest.dataset}/{features.manifest.fingerprint}"})
        return {
            PROVENANCE: to_parquet(_provenance(corpus, extracted, rows), compression="zstd"),
            PROBLEMS: to_parquet(report.problems_table(corpus, problems), compression="zstd"),
            AUDIT: audit.to_json(),
            CARD: render_card(features.manifest, audit).encode(),
        }

    return import_rows(
        _rows(corpus, {each.plan.modality: each for each in held}),
        root,
        dataset=corpus.name,
        labels=corpus.labels or None,
        source=f"{kind} corpus {corpus.source}",
        encoders={each.plan.modality: f"{each.encoder.name} {each.encoder.digest()[:16]}" for each in held},
        synthetic=corpus.synthetic,
        extraction=Extraction(
            inputs_digest(corpus, [each.plan for each in extracted], encoders),
            _origin(corpus, extracted, problems, config, kind),
            extra_files,
        ),
        gate_share=config.gate_share,
    )


def publish_table(corpus: Corpus, extracted: Sequence[Extracted], config: ExtractionConfig, *, log: str) -> str:
    """Write utterances that will be predicted as a table, without required labels or splits; return its URI.

    Its columns are those of a table for import; null if the corpus has no value. The encoders are recorded in its
    schema, under the key ``recipe``.

    Args:
        corpus: The corpus, as its reader returned it.
        extracted: The outcomes, by modality.
        config: The policy, and the settings that decided the vectors.
        log: Folder that gets the table and the list of all problems.

    Raises:
        DataError: Too many clips are unreadable, or there is no vector at all.
    """
    problems = report.problems_of(corpus, extracted)
    held = _held(corpus, extracted, problems, config, listed=storage.join(log, PROBLEMS))
    rows = _rows(corpus, {each.plan.modality: each for each in held}).columns
    empty = pc.equal(rows["split"], pa.scalar(""))
    split = pc.if_else(empty, pa.scalar(None, pa.string()), rows["split"])
    rows = schema.with_column(rows, "split", split)
    facts = {RECIPE: _recipe(extracted, config).model_dump_json()}
    uri = storage.join(log, TABLE)
    storage.put(uri, to_parquet(rows.replace_schema_metadata(facts), compression="zstd"))
    return uri


def _held(
    corpus: Corpus,
    extracted: Sequence[Extracted],
    problems: Sequence[Problem],
    config: ExtractionConfig,
    *,
    listed: str,
) -> list[Extracted]:
    """List the problems, enforce the policy, and return the modalities that have a vector."""
    storage.put(listed, to_parquet(report.problems_table(corpus, problems), compression="zstd"))
    report.enforce(corpus, extracted, problems, config.policy, listed)
    held = [each for each in extracted if any(one and one.vector is not None for one in each.outcomes)]
    if not held:
        raise DataError(
            f"{corpus.source} must give a vector for at least one utterance, but gives none. All problems: {listed}.",
            uri=corpus.source,
        )
    return held


def _origin(
    corpus: Corpus, extracted: Sequence[Extracted], problems: Sequence[Problem], config: ExtractionConfig, kind: str
) -> Origin:
    first = problems[: config.policy.named]
    return Origin(
        kind=kind,
        location=corpus.source,
        licence=corpus.licence,
        media=config.media.model_dump(mode="json"),
        modalities={each.plan.modality: report.origin_of(each) for each in extracted},
        notes=corpus.problems,
        problems=len(problems),
        first_problems=tuple(report.sentence(corpus, problem) for problem in first),
        recipe=_recipe(extracted, config),
    )


def _recipe(extracted: Sequence[Extracted], config: ExtractionConfig) -> Recipe:
    return Recipe(
        config=config.model_dump(mode="json", include={"encoders", "media"}),
        encoders={each.plan.modality: each.encoder.digest() for each in extracted},
    )


# --- rows ---


def _rows(corpus: Corpus, extracted: Mapping[Modality, Extracted]) -> Rows:
    """Return the utterances of a corpus as rows of a table for import."""
    items = corpus.utterances
    columns: dict[str, Any] = {
        "dialogue_id": pa.array([item.dialogue_id for item in items], pa.string()),
        "utterance_index": pa.array([item.utterance_index for item in items], pa.int64()),
        "label": pa.array([(item.label or "").strip() or None for item in items], pa.string()),
        "split": pa.array([item.split for item in items], pa.string()),
        "utterance_id": pa.array([item.utterance_id for item in items], pa.string()),
        "speaker": pa.array([item.speaker for item in items], pa.string()),
        "text": pa.array([item.text for item in items], pa.string()),
        "recorded_at": pa.array([item.recorded_at for item in items], pa.int64()).cast(pa.timestamp("us", "UTC")),
    }
    for modality, each in extracted.items():
        vectors = [one.vector if one else None for one in each.outcomes]
        columns[schema.vector_column(modality)] = schema.list_vectors(vectors)
    table = pa.table(columns)
    file = File(corpus.source, table, {name: name for name in columns}, {}, unused=corpus.unused)
    return Rows(corpus.source, (file,), table)


# --- the other files of a feature set ---


def _provenance(corpus: Corpus, extracted: Sequence[Extracted], rows: pa.Table) -> pa.Table:
    """Return, for each row of the set in its order, the content and the encoders of its vectors."""
    places = {(item.split, item.dialogue_id, item.utterance_index): at for at, item in enumerate(corpus.utterances)}
    keys = rows.select(list(schema.SORT_KEYS)).to_pylist()
    lines = []
    for key in keys:
        split, dialogue, index = (key[name] for name in schema.SORT_KEYS)
        place = places.get((split, dialogue, index))
        if place is None:  # gate or dev was cut from train
            place = places["train", dialogue, index]
        line = {**key, "utterance_id": corpus.utterances[place].utterance_id}
        line["notes"] = list(corpus.utterances[place].notes)
        for each in extracted:
            line |= _trace(corpus, each, place)
        lines.append(line)
    columns = [*report.KEYS, pa.field("notes", pa.list_(pa.string()))]
    columns += [field for each in extracted for field in _trace_fields(each.plan.modality)]
    encoders: dict[bytes | str, bytes | str] = {
        f"{each.plan.modality}_encoder": each.encoder.model_dump_json() for each in extracted
    }
    return pa.Table.from_pylist(lines, schema=pa.schema(columns, metadata=encoders))


def _trace(corpus: Corpus, extracted: Extracted, place: int) -> dict[str, Any]:
    modality, one = extracted.plan.modality, extracted.outcomes[place]
    piece, item = extracted.plan.pieces[place], item_of(corpus.utterances[place], modality)
    values: dict[str, Any] = {
        "digest": piece.digest if piece else None,
        "flags": list(one.flags) if one else None,
        "problem": one.problem if one else None,
        "measures": list(one.measures.items()) if one else None,
    }
    if isinstance(item, Clip):
        values |= {"file": storage.public(item.uri), "start": item.start, "end": item.end, "crop": item.crop}
    return {f"{modality}_{name}": value for name, value in values.items()}


def _trace_fields(modality: Modality) -> list["pa.Field[Any]"]:
    kinds: dict[str, pa.DataType] = {
        "file": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        "crop": pa.string(),
        "digest": pa.string(),  # SHA-256 of the file, or of the text
        "flags": pa.list_(pa.string()),
        "problem": pa.string(),
        "measures": pa.map_(pa.string(), pa.float64()),
    }
    own = {"crop"} if modality == "audio" else {"file", "start", "end", "crop"} if modality == "text" else set()
    return [pa.field(f"{modality}_{name}", kind) for name, kind in kinds.items() if name not in own]
