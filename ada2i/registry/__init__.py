"""Registered models: immutable versions on any storage."""
