"""The summary of a feature set that ends every import and extraction."""

from typing import TYPE_CHECKING

from rich.text import Text

from ada2i.display import count
from ada2i.jobs import logs

if TYPE_CHECKING:
    from ada2i.data.manifest import Manifest, SplitInfo


def show_features(uri: str) -> None:
    """Print on standard error what a feature set holds, what its audit found, and the next command."""
    from ada2i.audit.measures import measures
    from ada2i.data.manifest import open_features

    notes = logs.notes()
    features = open_features(uri)
    for line in _contents(features.manifest):
        notes.print(line)
    report = measures(features)
    findings = [finding for finding in report.findings if finding.severity != "info"]
    for finding in findings:
        style = "bold red" if finding.severity == "error" else ""
        notes.print(Text.assemble((f"audit {finding.severity}", style), f" {finding.code}: {finding.message}"))
    if not findings:
        notes.print("audit: no errors or warnings")
    errors = dict.fromkeys(finding.code for finding in findings if finding.severity == "error")
    if errors:
        allowed = " ".join(f"--allow {code}" for code in errors)
        notes.print(f"Training refuses these errors: correct the source, or add `{allowed}` to `ada2i train {uri}`.")
    else:
        notes.print(f"Next: `ada2i audit {uri}` shows details, `ada2i train {uri}` trains.")


def _contents(manifest: "Manifest") -> list[str]:
    synthetic = ", SYNTHETIC" if manifest.synthetic else ""
    held = [split for split in ("train", "dev", "test", "gate") if split in manifest.splits]
    splits = (f"{split} {_counts(manifest.splits[split])}" for split in held)
    gate = [] if "gate" in held else ["gate: none; `recorded_at` in the source gives one"]
    widths = (f"{modality} {width}" for modality, width in manifest.widths.items())
    licences = manifest.origin.licences if manifest.origin else {}
    return [
        f"dataset {manifest.dataset}{synthetic}: {'; '.join(splits)}",
        *([f"splits: {manifest.split_rule}"] if manifest.split_rule else []),
        *gate,
        f"classes: {', '.join(manifest.labels)}",
        *(f"no utterance in {split} has the class {', '.join(names)}" for split, names in _absent(manifest).items()),
        f"modalities and widths: {', '.join(widths)}",
        *(f"licence of {of}: {licence}" for of, licence in licences.items()),
        f"source: {manifest.source}",
        *(f"not read: `{name}`: {held}" for name, held in manifest.unused.items()),
    ]


def _absent(manifest: "Manifest") -> dict[str, list[str]]:
    """Return the classes that a split lacks, by split."""
    lacking = {
        split: [label for label, number in zip(manifest.labels, info.class_counts, strict=True) if not number]
        for split, info in manifest.splits.items()
    }
    return {split: names for split, names in lacking.items() if names}


def _counts(split: "SplitInfo") -> str:
    unlabelled = split.utterances - sum(split.class_counts)
    without = f" ({unlabelled} without a label)" if unlabelled else ""
    return f"{count(split.dialogues, 'dialogue')}, {count(split.utterances, 'utterance')}{without}"
