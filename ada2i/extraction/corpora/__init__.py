"""Readers that turn corpora on disk or in object storage into utterances."""
