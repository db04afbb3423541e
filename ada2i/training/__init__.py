"""Training: one step, one seed, one run on a cluster."""
