"""Drift: whether what a model predicts still looks like what it was trained on."""

from ada2i.drift.detect import Drift, Statistic, judge, limits
from ada2i.drift.page import render
from ada2i.drift.reference import Reference, reference_of
from ada2i.drift.windows import Window, keep, last_compared, summarise, windows

__all__ = [
    "Drift",
    "Reference",
    "Statistic",
    "Window",
    "judge",
    "keep",
    "last_compared",
    "limits",
    "reference_of",
    "render",
    "summarise",
    "windows",
]
