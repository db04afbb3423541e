"""Audits features: measures anomalies, explains them, and refuses features that must not be trained on.

Works on feature sets, and on tables that cannot be imported.
"""

from collections.abc import Collection, Iterable

from ada2i.audit import counts, probe
from ada2i.audit.accumulate import accumulate
from ada2i.audit.blocks import Source, feature_source, table_source
from ada2i.audit.findings import CODES, findings
from ada2i.audit.records import AuditReport
from ada2i.audit.thresholds import AuditThresholds
from ada2i.data.manifest import is_feature_set, open_features
from ada2i.errors import ConfigError, DataError
from ada2i.records import Finding

DEFAULTS = AuditThresholds()
FITTED = "train-fitted-features"


def audit(location: str, *, thresholds: AuditThresholds = DEFAULTS) -> AuditReport:
    """Audit the features at a location, including probes; nothing is written.

    Args:
        location: The folder of a feature set, or a table: a file or a folder of files.
        thresholds: Values from which a measure is a warning or an error.

    Raises:
        DataError: There are no features at the location, or a file is damaged.
    """
    if is_feature_set(location):
        return audit_source(feature_source(open_features(location)), thresholds=thresholds)
    return audit_source(table_source(location), thresholds=thresholds)


def audit_source(source: Source, *, thresholds: AuditThresholds = DEFAULTS) -> AuditReport:
    """Read a source once, and twice more for probes, and return the report.

    Args:
        source: What to read.
        thresholds: Values from which a measure is a warning or an error.

    Raises:
        DataError: It has no rows, or a file is damaged.
    """
    total = accumulate(source.blocks())
    if not total.rows:
        raise DataError(
            f"{source.location} must hold at least one utterance, but has no row. Check what wrote it.",
            uri=source.location,
        )
    rows = counts.coded_rows(total)
    classes = counts.class_names(total)
    splits = {split: counts.count_split(total, rows, split, classes) for split in rows.splits}
    modalities = {m: counts.count_modality(total, rows, m) for m in rows.vectors}
    probed = probe.can_probe(splits, sorted(total.absent), thresholds)
    scores = probe.probe(source, classes, modalities, thresholds) if probed else {}
    manifest = source.manifest
    report = AuditReport(
        location=source.location,
        kind="feature set" if manifest else "table",
        dataset=total.dataset,
        synthetic=manifest is not None and manifest.synthetic,
        fingerprint=manifest.fingerprint if manifest else None,
        dev_rule=manifest.dev_rule if manifest else None,
        classes=classes,
        absent_columns=tuple(sorted(total.absent)),
        null_keys=dict(sorted(total.null_keys.items())),
        splits=splits,
        modalities={m: known.model_copy(update={"probe": scores.get(m)}) for m, known in modalities.items()},
        overlaps=counts.count_overlaps(rows),
        probed=probed,
        thresholds=thresholds,
    )
    return report.model_copy(update={"findings": findings(report)})


def check_codes(allow: Iterable[str]) -> None:
    """Refuse codes that no finding has.

    Raises:
        ConfigError: A code is unknown.
    """
    if unknown := [code for code in allow if code not in CODES]:
        raise ConfigError(
            f"`--allow` must name codes of findings, but {unknown[0]!r} is not one. Known codes are "
            f"{', '.join(CODES)}.",
            field="allow",
        )


def blocking(found: Iterable[Finding], *, allow: Collection[str] = ()) -> list[Finding]:
    """Return the errors that forbid training."""
    return [finding for finding in found if finding.severity == "error" and finding.code not in allow]
