"""The network: encoders, adaptive feature weighting, adaptive modality weighting."""

__all__ = ["ada2i", "afw", "amw", "build", "inputs", "live", "own", "relational"]
