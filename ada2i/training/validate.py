"""Loss and scores on dev, by which the best epoch is selected."""

import torch

from ada2i.errors import DivergenceError
from ada2i.evaluation.metrics import scores
from ada2i.inference.predict import predict
from ada2i.model.ada2i import Ada2I
from ada2i.records import UNLABELLED, Scores
from ada2i.training import distributed, losses
from ada2i.training.sharding import own_share
from ada2i.training.task import Task


def evaluate(task: Task, model: Ada2I) -> tuple[float, Scores]:
    """Return the dev loss, the mean NLL summed over batches (released code), and the dev scores; equal on all ranks.

    In regression the loss is L1, and the scores hold the mean absolute error.
    """
    classes = len(task.features.labels)
    confusion = torch.zeros(classes * classes, dtype=torch.float64, device=task.device)
    sums = torch.zeros(3, dtype=torch.float64, device=task.device)  # the loss, distances, utterances with a target
    order = task.dev.in_order(task.config.training.batch_dialogues)
    shares = (own_share(task.near_dev, dialogues) for dialogues in order.batches())
    for batch, prediction in predict(model, (share for share in shares if share.counted), task.device):
        logits = prediction.logits
        found = losses.cross_entropy(logits, batch)
        sums += torch.stack([found.share(), found.total, batch.known.sum()]).double()
        guess = model.chances(logits).argmax(dim=-1)
        cells = (batch.labels * classes + guess)[batch.labels != UNLABELLED]
        confusion += torch.bincount(cells, minlength=classes * classes)
    together = distributed.sum_over_ranks(torch.cat([sums, confusion])).cpu()
    if not torch.isfinite(together[0]):
        raise DivergenceError(
            f"The dev loss of seed {task.seed} must be finite, but is {float(together[0])}: training has "
            "diverged. Lower `training.learning_rate`.",
            seed=task.seed,
        )
    counts = together[3:].round().to(torch.int64).view(classes, classes).numpy()
    dev = scores(counts, task.features.labels, "dev")
    mae = float(together[1] / together[2].clamp_min(1)) if task.config.regression else None
    return float(together[0]), dev.model_copy(update={"mae": mae})
