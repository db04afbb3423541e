"""The dataset card of a feature set: markdown behind YAML, in the format of the Hugging Face hub."""

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from ada2i.audit.records import AuditReport
from ada2i.data.manifest import Manifest

if TYPE_CHECKING:
    from jinja2 import Template

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_card(manifest: Manifest, audit: AuditReport) -> str:
    """Return the card of an extracted set; the same set gives the same bytes.

    Args:
        manifest: The manifest of a set with an origin.
        audit: The audit of its shards.
    """
    total = sum(split.utterances for split in manifest.splits.values())
    size = next((name for limit, name in _SIZES if total < limit), "n>1M")
    return _template().render(manifest=manifest, origin=manifest.origin, audit=audit, total=total, size=size)


@lru_cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    # The output is markdown, not HTML, so nothing is escaped; YAML texts are written as JSON, which is valid YAML.
    environment = Environment(
        autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.from_string(resources.files(__package__).joinpath("card.md.j2").read_text("utf-8"))
