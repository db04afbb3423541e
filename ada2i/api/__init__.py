"""The Python API: thin entry points on the use cases that the command line and the flows call, too."""

from ada2i.api.frames import Frame
from ada2i.api.model import LoadedModel, load
from ada2i.api.work import Run, baseline, compare, demo_table, extract, import_table, train

__all__ = [
    "Frame",
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
