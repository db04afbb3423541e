"""Audits features: measures anomalies, explains them, and refuses features that must not be trained on.

Works on feature sets, and on tables that cannot be imported.
"""

from collections.abc import Collection, Iterable

from ada2i.audit import counts, probe
from ada2i.audit.accumulate import accumulate
from ada2i.audit.blocks import Source, feature_source, table_source
from ada2i.audit.findings import CODES, findings, less_sure
from ada2i.audit.records import AuditReport, ProbeAudit
from ada2i.audit.thresholds import AuditThresholds
from ada2i.data.manifest import FeatureSet, is_feature_set, open_features
from ada2i.errors import ConfigError, DataError
from ada2i.modalities import Modality
from ada2i.records import Finding, GateRecord

DEFAULTS = AuditThresholds()
FITTED, UNPROBED = "train-fitted-features", "not-probed"


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


def audit_source(
    source: Source, *, thresholds: AuditThresholds = DEFAULTS, probed: bool = True, test_labels: bool = True
) -> AuditReport:
    """Read a source once, and twice more for probes, and return the report.

    Args:
        source: What to read.
        thresholds: Values from which a measure is a warning or an error.
        probed: Whether to fit probes.
        test_labels: Whether probes are scored on test; what decides about a training must not depend on it.

    Raises:
        DataError: It has no rows, or a file is damaged.
    """
    total = accumulate(source.blocks())
    if not total.rows:
        raise DataError(
            f"{source.location} must hold at least one utterance, but has no row. Check what wrote it.",
            uri=source.location,
        )
    rows = counts.ledger(total)
    classes = counts.class_names(total)
    splits = {split: counts.count_split(total, rows, split, classes) for split in rows.splits}
    modalities = {m: counts.count_modality(total, rows, m) for m in rows.vectors}
    probed = probed and probe.can_probe(splits, sorted(total.absent), thresholds)
    scores = probe.probe(source, classes, modalities, thresholds, test_labels=test_labels) if probed else {}
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


def blocking(
    found: Iterable[Finding], *, allow: Collection[str] = (), modalities: Collection[Modality] | None = None
) -> list[Finding]:
    """Return the errors that forbid training with some modalities (by default with any modality)."""
    return [
        finding
        for finding in found
        if finding.severity == "error"
        and finding.code not in allow
        and (modalities is None or finding.modality is None or finding.modality in modalities)
    ]


def gate(
    features: FeatureSet,
    *,
    modalities: Collection[Modality],
    allow: Collection[str] = (),
    leave_out_fitted: bool = False,
) -> GateRecord:
    """Check every shard against its digest and schema, and refuse features that must not be trained on.

    Args:
        features: The feature set.
        modalities: The modalities of the run; findings on others are ignored.
        allow: Codes of findings that the caller accepts.
        leave_out_fitted: Return the modalities whose vectors were fitted to the labels of train. They are recognised by
            how confident a probe of train is on the vectors of test; labels of test are not used.

    Raises:
        IntegrityError: A shard differs from the manifest.
        DataError: A shard is missing or has another layout, or a finding of severity error is not allowed.
    """
    probed = leave_out_fitted and FITTED not in allow
    report = audit_source(feature_source(features), probed=probed, test_labels=False)
    found = tuple(f for f in report.findings if f.modality is None or f.modality in modalities)
    if probed:
        found += tuple(_unprobed(m) for m in modalities if m in report.modalities and not report.modalities[m].probe)
    if errors := blocking(found, allow=allow):
        listed = "\n".join(f"  {finding.code}: {finding.message}" for finding in errors)
        accept = " ".join(f"--allow {code}" for code in dict.fromkeys(finding.code for finding in errors))
        raise DataError(
            f"{features.uri} must pass the audit, but has\n{listed}\nCorrect the features; or, if you know the reason, "
            f"accept it with `{accept}`. `ada2i audit` shows all findings.",
            uri=features.uri,
            codes=tuple(finding.code for finding in errors),
        )
    fitted = [m for m in modalities if (known := report.modalities.get(m)) and known.probe and _is_fitted(known.probe)]
    return GateRecord(findings=found, allowed=tuple(allow), left_out=tuple(fitted))


def _unprobed(modality: Modality) -> Finding:
    message = f"{modality} was not probed: it is unknown whether its vectors were fitted to the labels of train."
    return Finding(code=UNPROBED, severity="info", message=message, count=1, modality=modality)


def _is_fitted(probe: ProbeAudit) -> bool:
    return less_sure(probe, DEFAULTS)
