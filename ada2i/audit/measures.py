"""The measures of a feature set, kept next to it: one pass computes them, and no later run reads the set for them.

They are the report of an audit with probes, and the sums from which means and deviations are computed.

Shape letters in this file:
    n rows of a shard     W width of a modality's vectors
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ada2i import storage
from ada2i.audit.audit import DEFAULTS, audit_source
from ada2i.audit.blocks import Block, feature_source
from ada2i.audit.findings import findings
from ada2i.audit.records import AuditReport
from ada2i.data import schema
from ada2i.data.manifest import FeatureSet
from ada2i.errors import AccessError, DataError, NotFoundError
from ada2i.loader.statistics import Sums, block_sums, put_statistics
from ada2i.modalities import Modality
from ada2i.records import Record, Sha256

log = logging.getLogger(__name__)

MEASURES = "measures-1.json"


class Measures(Record):
    """The report of a feature set, as it is stored."""

    schema_version: Literal[1] = 1
    fingerprint: str
    content: Sha256  # ``Manifest.content`` of the set
    report: AuditReport


def measures(features: FeatureSet, *, test_labels: bool = True) -> AuditReport:
    """Return the audit of a feature set, stored next to it; if it is not, read the set once and store it if possible.

    Args:
        features: The feature set.
        test_labels: Whether the report may hold scores on labels of test; what decides about a training must not.

    Raises:
        IntegrityError: The set is read, and a shard differs from the manifest.
        DataError: The set is read, and a shard is missing or has another layout.
    """
    stored = _stored(features) or _measured(features)
    limits = stored.model_copy(update={"thresholds": DEFAULTS, "location": features.uri})
    report = limits if test_labels else limits.model_copy(update={"modalities": _without_test(limits)})
    return report.model_copy(update={"findings": findings(report)})


def without_probes(report: AuditReport) -> AuditReport:
    """Return a report as an audit without probes makes it."""
    plain = {m: known.model_copy(update={"probe": None}) for m, known in report.modalities.items()}
    report = report.model_copy(update={"modalities": plain, "probed": False})
    return report.model_copy(update={"findings": findings(report)})


def _without_test(report: AuditReport) -> dict[Modality, object]:
    return {
        m: known.model_copy(update={"probe": known.probe and known.probe.model_copy(update={"test": None})})
        for m, known in report.modalities.items()
    }


def _stored(features: FeatureSet) -> AuditReport | None:
    try:
        record = Measures.load(storage.join(features.uri, MEASURES))
    except (NotFoundError, AccessError, DataError):  # S3 answers 403 if listing is forbidden
        return None
    manifest = features.manifest
    return record.report if (record.fingerprint, record.content) == (manifest.fingerprint, manifest.content) else None


def _measured(features: FeatureSet) -> AuditReport:
    """Read a set, and keep its report and sums next to it."""
    source = feature_source(features)
    sums: dict[str, dict[Modality, Sums]] = {}

    def blocks() -> Iterator[Block]:  # an audit reads them up to three times: the first time, they are summed
        return source.blocks() if sums else _summed(source.blocks(), sums)

    manifest = features.manifest
    place = f"{manifest.dataset}/{manifest.fingerprint}"  # copies of a set have the same bytes
    report = audit_source(replace(source, blocks=blocks)).model_copy(update={"location": place})
    record = Measures(fingerprint=manifest.fingerprint, content=manifest.content, report=report)
    try:
        # Without these objects, also after a crash before or between these writes, the next run reads the set again.
        put_statistics(features, sums)
        storage.put(storage.join(features.uri, MEASURES), record.stored())
    except AccessError as problem:
        log.warning("The measures of %s are not kept, so each run reads it again: %s", features.uri, problem.message)
    return report


def _summed(blocks: Iterator[Block], sums: dict[str, dict[Modality, Sums]]) -> Iterator[Block]:
    """Yield blocks; add the ``(1 + 2 W,)`` sums of each to those of its split, as ``mean_and_deviation`` adds them."""
    for block in blocks:
        if block.columns.num_rows:
            here = sums.setdefault(str(block.columns["split"][0].as_py()), {})
            for modality, column in block.vectors.items():
                for part in block_sums(*schema.unpack_vectors(column)):
                    here[modality] = here.get(modality, 0.0) + part
        yield block
