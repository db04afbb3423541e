"""What an extraction job exports for Prometheus."""

from ada2i.jobs.metrics import Metric

_TAGS = ("run", "modality", "encoder")

METRICS = (
    Metric("extraction_to_encode", "Vectors that this attempt has to make", _TAGS),
    Metric("extraction_reused", "Vectors that were made before", _TAGS),
    Metric("extraction_done", "Vectors made by this attempt, those included that came to nothing", _TAGS),
    Metric("extraction_per_second", "Vectors made per second, all workers", _TAGS),
    Metric("extraction_seconds_left", "Seconds until the modality is done", _TAGS),
    Metric("extraction_lost", "Media of this attempt that gave no vector, by what is wrong", (*_TAGS, "problem")),
)
