"""Measured speed; ratios are taken within one run, since machines are noisy."""
