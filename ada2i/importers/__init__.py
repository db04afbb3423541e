"""Imports tables, pickles and published corpora as feature sets: `ada2i import`."""

__all__ = [
    "arrow_types",
    "checks",
    "datasets",
    "demo",
    "import_rows",
    "join",
    "labels",
    "meld",
    "published",
    "resolve",
    "rows",
    "source",
    "table",
    "transcripts",
]
