"""The network: encoders, adaptive feature weighting, adaptive modality weighting."""
