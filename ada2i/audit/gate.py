"""Refuses features that must not be trained on."""

from collections.abc import Collection

from ada2i.audit.audit import DEFAULTS, FITTED, blocking
from ada2i.audit.findings import less_sure
from ada2i.audit.measures import measures, without_probes
from ada2i.data.manifest import FeatureSet
from ada2i.errors import DataError
from ada2i.modalities import Modality
from ada2i.records import Finding, GateRecord

UNPROBED = "not-probed"


def gate(
    features: FeatureSet,
    *,
    modalities: Collection[Modality],
    allow: Collection[str] = (),
    leave_out_fitted: bool = False,
) -> GateRecord:
    """Refuse features that must not be trained on, by their stored measures; shards are checked as they are read.

    Args:
        features: The feature set.
        modalities: The modalities of the run; findings on others are ignored.
        allow: Codes of findings that the caller accepts.
        leave_out_fitted: Return the modalities whose vectors were fitted to the labels of train. They are recognised by
            how confident a probe of train is on the vectors of test; labels of test are not used.

    Raises:
        IntegrityError: There are no measures yet, and a shard differs from the manifest.
        DataError: So, and a shard is missing or has another layout; or a finding of severity error is not allowed.
    """
    probed = leave_out_fitted and FITTED not in allow
    report = measures(features, test_labels=False)
    report = report if probed else without_probes(report)
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
    probes = {m: report.modalities[m].probe for m in modalities if m in report.modalities}
    fitted = tuple(m for m, probe in probes.items() if probe and less_sure(probe, DEFAULTS))
    return GateRecord(findings=found, allowed=tuple(allow), left_out=fitted)


def _unprobed(modality: Modality) -> Finding:
    message = f"{modality} was not probed: it is unknown whether its vectors were fitted to the labels of train."
    return Finding(code=UNPROBED, severity="info", message=message, count=1, modality=modality)
