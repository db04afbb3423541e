"""Corpora as they lie on disk or in object storage, read into utterances."""
