"""The metrics of training: each has one line here, and one line in ``train_step``, a balancer or ``fit``.

The table defines the fields of ``EpochRecord``, Prometheus gauges and, by ``python -m infra.training_dashboard``,
the Grafana panels.
"""

from dataclasses import dataclass
from typing import Final

from ada2i.jobs.metrics import Metric

_RUN = ("run", "seed")
_MODALITY = (*_RUN, "modality")


@dataclass(frozen=True)
class TrainingMetric(Metric):
    """A metric with one value per epoch.

    Attributes:
        unit: Unit in Grafana; ``short`` for plain numbers.
    """

    unit: str = "short"

    @property
    def by_modality(self) -> bool:
        """Whether an epoch has one value per modality."""
        return "modality" in self.tags


METRICS: Final = (
    TrainingMetric("epoch", "Epochs done", _RUN),
    TrainingMetric("seconds", "Seconds that the epoch took", _RUN, "s"),
    TrainingMetric("utterances_per_second", "Training utterances per second, all workers", _RUN),
    TrainingMetric("dev_weighted_f1", "Weighted F1 on dev", _RUN, "percentunit"),
    TrainingMetric("dev_macro_f1", "Macro F1 on dev", _RUN, "percentunit"),
    TrainingMetric("dev_loss", "Sum over dev batches of the mean negative log-likelihood (nats)", _RUN),
    TrainingMetric("loss", "Training loss, mean over the epoch (nats and L1)", _RUN),
    TrainingMetric("classification_loss", "Negative log-likelihood, mean over the epoch (nats)", _RUN),
    TrainingMetric("modal_loss", "Negative log-likelihood of the votes' sum, mean over the epoch (nats)", _RUN),
    TrainingMetric("feature_loss", "L1 distance of AFW's mapping network, mean over the epoch", _RUN),
    TrainingMetric("learning_rate", "Learning rate", _RUN, "sci"),
    TrainingMetric("ratio", "Disparity ratio rho_m, mean over the epoch", _MODALITY),
    TrainingMetric("coefficient", "Modulation coefficient k_m, mean over the epoch", _MODALITY),
    TrainingMetric("gate_share", "Data-dependent share of AFW's gate, mean over the epoch", _MODALITY, "percentunit"),
    TrainingMetric("gradient_norm", "L2 norm of all gradients before clipping, mean over the epoch", _RUN),
    TrainingMetric("encoder_gradient_norm", "L2 norm of an encoder's gradients before clipping, epoch mean", _MODALITY),
)
