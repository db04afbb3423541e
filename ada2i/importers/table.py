"""Imports a corpus from tables: Parquet, CSV, JSON lines, Arrow, or a folder of `datasets`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ada2i.data.manifest import is_feature_set, open_features, require_modalities
from ada2i.data.shards import copy_features
from ada2i.data.splits import GATE_SHARE
from ada2i.errors import ConfigError
from ada2i.importers.columns import NO_CHANGES, Changes, parse_changes
from ada2i.importers.formats import suffix_of
from ada2i.importers.import_rows import import_rows, plain_name
from ada2i.importers.labels import recorded_names
from ada2i.importers.rows import Rows
from ada2i.importers.source import LABEL_RULE, read_rows
from ada2i.importers.splitting import GROUPS, SHARES, Shares, check_classes, checked_shares, with_made_splits
from ada2i.modalities import Modality


def import_table(
    source: str,
    root: str,
    *,
    dataset: str | None = None,
    labels: str | tuple[str, ...] | None = None,
    needs: Sequence[Modality] = (),
    gate_share: float = GATE_SHARE,
    origin: str | None = None,
    rename: Mapping[str, str] | Iterable[str] = (),
    pack: Iterable[str] = (),
    split_by: str | None = None,
    shares: str | Sequence[float] | None = None,
) -> str:
    """Import a table, or all tables of one format below a folder, as a feature set.

    ``docs/features.md`` describes formats and columns. A feature set is copied to the root, under another name or with
    other labels if given.

    Args:
        source: A path, or any URI that fsspec opens; or a feature set.
        root: The storage root.
        dataset: Name of the set; by default the recorded key ``dataset``, else the name of the file or folder.
        labels: Class names by index; by default the recorded ``label_names``, else the names or indices in train.
        needs: Modalities that the set must hold.
        gate_share: Share of train's dialogues with a time that becomes the gate, if the table has none; 0: no gate.
        origin: Where the table came from, to be recorded; by default its location.
        rename: New names of columns by their own, or texts ``own=new``.
        pack: Patterns of columns with one number each that become a vector, such as ``text_*`` or ``emb_*=text_feat``.
        split_by: What makes the splits of a table without them: ``dialogue``, ``time``, or a column; see ``splitting``.
        shares: Of train, dev and test, in percent, for ``split_by``; by default 80, 10 and 10.

    Returns:
        The URI of the set; the same content always gets the same URI and is written once.

    Raises:
        ConfigError: ``rename`` or ``pack`` has a wrong form. Nothing was written.
        DataError: A check failed. Nothing was written.
    """
    changes, percent = parse_changes(rename, pack), _shares(split_by, shares)
    labels = tuple(labels.split(",")) if isinstance(labels, str) else labels
    if changes == NO_CHANGES and split_by is None and is_feature_set(source):
        base = open_features(source)
        if dataset in (None, base.manifest.dataset) and labels in (None, base.manifest.labels):
            require_modalities(base.uri, held=base.manifest.widths, needs=needs)
            return copy_features(base, root)
    rows = _read(source, changes, split_by, percent, dataset)
    if split_by is not None and labels is None and recorded_names(rows.files) is None:
        check_classes(rows)
    return import_rows(
        rows,
        root,
        dataset=dataset_name(rows) if dataset is None else dataset,
        labels=labels,
        source=origin or f"table {provenance(rows)}",
        needs=needs,
        counted=False,
        gate_share=0.0 if _by_group(split_by) else gate_share,  # a gate would take dialogues out of train's groups
    )


def _by_group(split_by: str | None) -> bool:
    return split_by is not None and split_by not in GROUPS


def _shares(split_by: str | None, shares: str | Sequence[float] | None) -> Shares:
    """Return the shares of splits that are made.

    Raises:
        ConfigError: There are shares, but no splits are made; or dev would be cut out of train's groups.
    """
    if split_by is None and shares is not None:
        raise ConfigError(
            "`--shares` needs `--split-by`, which makes the splits, but that is not given. Add for example `--split-by "
            "dialogue`.",
            field="shares",
        )
    percent = checked_shares(SHARES if shares is None else shares)
    if _by_group(split_by) and percent[1] == 0:
        raise ConfigError(
            f"`--shares` must give dev a share if `--split-by {split_by}` keeps groups together, but gives 0: dev "
            "would be cut out of train's groups. Write for example `--shares 80,10,10`.",
            field="shares",
        )
    return percent


def _read(source: str, changes: Changes, split_by: str | None, shares: Shares, dataset: str | None) -> Rows:
    if split_by is None:
        return read_rows(source, changes=changes)
    rows = read_rows(source, changes=changes, group=GROUPS.get(split_by, split_by))
    return with_made_splits(rows, split_by, shares, plain_name(dataset_name(rows) if dataset is None else dataset))


def dataset_name(rows: Rows) -> str:
    """Return the name of a table's dataset: the recorded name, else the name of the file or folder."""
    return rows.recorded("dataset") or _last_part(rows.source)


def provenance(rows: Rows) -> str:
    """Return a table's location, with the origin of its values if it records one."""
    recorded, rule = rows.recorded("source"), rows.recorded(LABEL_RULE)
    return rows.source + (f" (from {recorded})" if recorded else "") + (f"; {rule}" if rule else "")


def _last_part(source: str) -> str:
    path = source if "://" in source else str(Path(source).expanduser().resolve())
    name = path.rstrip("/").rpartition("/")[2]
    return name[: len(name) - len(suffix_of(name))]
