"""Tests of the image and of the Compose file, in real containers."""
