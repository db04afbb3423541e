"""Imports a corpus with one table per modality."""

from collections.abc import Mapping

from ada2i import storage
from ada2i.errors import DataError
from ada2i.importers.checks import check_keys, with_splits
from ada2i.importers.import_rows import import_rows
from ada2i.importers.keyed import attach, read_keyed
from ada2i.importers.source import read_rows
from ada2i.importers.table import dataset_name, provenance
from ada2i.modalities import Modality


def import_joined(
    base: str,
    root: str,
    *,
    tables: Mapping[Modality, str],
    dataset: str | None = None,
    labels: tuple[str, ...] | None = None,
) -> str:
    """Import a table of utterances with the vectors of other tables, one per modality.

    A table of vectors identifies utterances by ``dialogue_id`` and ``utterance_index`` (else ``utterance_id``), and by
    ``split`` if it has that column; dev counts as train if the base or the table has no dev. It must contain the
    utterances of the base, each once, in any order.

    Args:
        base: A table as ``import_table`` takes it, or a feature set; its own vectors are replaced, and it may have
            none.
        root: The storage root.
        tables: By modality, the table with its vectors, such as ``text_feat``.
        dataset: Name of the set; by default the base's.
        labels: Class names by index; by default the base's.

    Returns:
        The URI of the set.

    Raises:
        DataError: A check failed. Nothing was written.
    """
    if not tables:
        raise DataError(
            "A join must have a table for at least one modality, but has none. Name one, or import the base as a "
            "table.",
            uri=base,
        )
    rows, synthetic = read_rows(base, vectors=False), False
    check_keys(rows)
    rows = with_splits(rows)
    encoders: dict[Modality, str] = {}
    for modality, table in tables.items():
        (keyed,) = read_keyed([table], keys=("utterance_index", "utterance_id"), only=modality)
        if keyed.key == "utterance_id":
            check_keys(rows, ["utterance_id"])
        rows = attach(rows, keyed, complete=True)
        encoders[modality] = keyed.rows.encoder(modality)
        synthetic = synthetic or keyed.rows.recorded("synthetic") == "true"
    joined = ", ".join(f"{modality} of {storage.public(table)}" for modality, table in tables.items())
    return import_rows(
        rows,
        root,
        dataset=dataset_name(rows) if dataset is None else dataset,
        labels=labels,
        source=f"table {provenance(rows)} joined with {joined}",
        encoders=encoders,
        synthetic=synthetic,
    )
