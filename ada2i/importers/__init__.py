"""From tables, pickles and published corpora of others to feature sets; `ada2i import`."""

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
