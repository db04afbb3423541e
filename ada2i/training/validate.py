"""Loss and scores on dev, by which the best epoch is selected."""

import torch

from ada2i.batch import UNLABELLED
from ada2i.errors import DivergenceError
from ada2i.evaluation.metrics import scores
from ada2i.inference.predict import predict
from ada2i.model.ada2i import Ada2I
from ada2i.records import Scores
from ada2i.training import distributed, losses
from ada2i.training.sharding import own_share
from ada2i.training.task import Task


def evaluate(task: Task, model: Ada2I) -> tuple[float, Scores]:
    """Return the dev loss, the mean NLL summed over batches (released code), and the dev scores; equal on all ranks."""
    classes = len(task.features.labels)
    confusion = torch.zeros(classes * classes, dtype=torch.float64, device=task.device)
    loss = torch.zeros(1, dtype=torch.float64, device=task.device)
    order = task.dev.in_order(task.config.training.batch_dialogues)
    shares = (own_share(task.dev, dialogues) for dialogues in order.batches())
    for batch, prediction in predict(model, (share for share in shares if share.counted), task.device):
        logits = prediction.logits
        loss += losses.cross_entropy(logits, batch).share()
        cells = (batch.labels * classes + logits.argmax(dim=-1))[batch.labels != UNLABELLED]
        confusion += torch.bincount(cells, minlength=classes * classes)
    together = distributed.sum_over_ranks(torch.cat([loss, confusion])).cpu()
    if not torch.isfinite(together[0]):
        raise DivergenceError(
            f"The dev loss of seed {task.seed} must be finite, but is {float(together[0])}: training has "
            "diverged. Lower `training.learning_rate`.",
            seed=task.seed,
        )
    counts = together[1:].round().to(torch.int64).view(classes, classes).numpy()
    return float(together[0]), scores(counts, task.features.labels, "dev")
