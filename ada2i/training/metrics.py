"""What a training job exports for Prometheus: fields of ``EpochRecord`` under their own names."""

from ada2i.jobs.metrics import Metric

_RUN = ("run", "seed")
_MODALITY = (*_RUN, "modality")

PLAIN = (
    Metric("loss", "Training loss, mean over the epoch (nats and L1)", _RUN),
    Metric("classification_loss", "Negative log-likelihood, mean over the epoch (nats)", _RUN),
    Metric("modal_loss", "Negative log-likelihood of the votes' sum, mean over the epoch (nats)", _RUN),
    Metric("feature_loss", "L1 distance of AFW's mapping network, mean over the epoch", _RUN),
    Metric("gradient_norm", "L2 norm of all gradients before clipping, mean over the epoch", _RUN),
    Metric("learning_rate", "Learning rate", _RUN),
    Metric("dev_loss", "Sum over dev batches of the mean negative log-likelihood (nats)", _RUN),
    Metric("dev_weighted_f1", "Weighted F1 on dev", _RUN),
    Metric("dev_macro_f1", "Macro F1 on dev", _RUN),
    Metric("utterances_per_second", "Training utterances per second, all workers", _RUN),
    Metric("seconds", "Seconds that the epoch took", _RUN),
    Metric("epoch", "Epochs done", _RUN),
)
BY_MODALITY = (
    Metric("ratio", "Disparity ratio rho_m, mean over the epoch", _MODALITY),
    Metric("coefficient", "Modulation coefficient k_m, mean over the epoch", _MODALITY),
    Metric("gate_share", "Data-dependent share of AFW's gate, mean over the epoch", _MODALITY),
    Metric("encoder_gradient_norm", "L2 norm of an encoder's gradients before clipping, epoch mean", _MODALITY),
)
METRICS = (*PLAIN, *BY_MODALITY)
