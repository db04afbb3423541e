"""What a prediction job exports for Prometheus."""

from ada2i.jobs.metrics import Metric

_TAGS = ("run", "model", "version")

METRICS = (
    Metric("prediction_done", "Utterances predicted, those of earlier attempts included", _TAGS),
    Metric("prediction_per_second", "Utterances predicted per second, all workers", _TAGS),
    Metric("prediction_seconds_left", "Seconds until all are predicted", _TAGS),
)
