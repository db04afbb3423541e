"""The dataset card of a feature set: markdown behind YAML, in the format of the Hugging Face hub."""

from ada2i.audit.records import AuditReport
from ada2i.data.manifest import Manifest
from ada2i.data.provenance import licence_warning
from ada2i.display import count
from ada2i.reports.templates import template

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_card(manifest: Manifest, audit: AuditReport) -> str:
    """Return the card of an extracted set; the same set gives the same bytes.

    Args:
        manifest: The manifest of a set with an origin.
        audit: The audit of its shards.
    """
    note = licence_warning(manifest.origin.licences) if manifest.origin else ""
    total = sum(split.utterances for split in manifest.splits.values())
    size = next((name for limit, name in _SIZES if total < limit), "n>1M")
    return template(__package__, "card.md.j2").render(
        count=count, manifest=manifest, origin=manifest.origin, audit=audit, licence_note=note, total=total, size=size
    )
