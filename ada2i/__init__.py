"""Ada2I: balanced multimodal emotion recognition in conversations, as a distributed training pipeline.

The Python API: ``load``, ``train``, ``extract``, ``baseline``, ``compare``, ``import_table`` and ``demo_table``. They
are imported on first use, so ``import ada2i`` takes milliseconds and imports neither torch nor Ray nor Prefect.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ada2i.api import LoadedModel, Run, baseline, compare, demo_table, extract, import_table, load, train

__version__ = "0.1.0"

__all__ = [
    "LoadedModel",
    "Run",
    "baseline",
    "compare",
    "demo_table",
    "extract",
    "import_table",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ada2i import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
