"""Classes of a user's own, outside of the package: the examples of docs/methods.md, as files."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
FILES = ("doc_encoder", "doc_fusion", "doc_balance")
FIELDS: Mapping[str, object] = {
    "model.encoder": "doc_encoder:Gru",
    "model.fusion": "doc_fusion:Concat",
    "balance.method": "doc_balance:SlowLeader",
    "balance.options.factor": 0.3,
}


def examples() -> list[str]:
    """Return the Python blocks of the page: an encoder, a fusion and a balance method."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def write_examples(folder: Path) -> None:
    """Write each example as a module."""
    for name, text in zip(FILES, examples(), strict=True):
        (folder / f"{name}.py").write_text(text)
