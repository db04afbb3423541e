"""TCMax: the votes and the label are trained for maximal total correlation (ICLR 2026, arXiv 2602.13015).

The objective is -mean f(z_i)[y_i] + log sum over labels y of the mean over recombined modalities of exp f[y]. For a
sum of votes the second term factorises: log sum over y of exp(b[y]) prod_m mean_j exp v_m[j, y], so no utterances are
recombined explicitly.

Shape letters in this file:
    N utterances     M modalities     C classes
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from ada2i.balance.none import NoBalancer
from ada2i.batch import DialogueBatch
from ada2i.config import TcMaxBalance
from ada2i.model.ada2i import Prediction
from ada2i.model.amw import Fusion
from ada2i.records import UNLABELLED


class TcMaxBalancer(NoBalancer):
    """Replaces the cross-entropy's log-sum-exp of each utterance by that over recombined votes; it has no state."""

    config: TcMaxBalance

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:
        """See ``Balancer``."""
        if not self.config.weight:
            return {}
        exps = self._exps(forward().votes.detach(), batch)
        return {"exps": exps.sum(dim=1), "rows": self._rows(batch).sum(), "weights": self._weights(batch).sum()}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See ``Balancer``."""
        if not self.config.weight:
            return {}
        rows = totals["rows"].clamp_min(1)
        own = (self._weights(batch) * prediction.fused.logsumexp(dim=-1)).sum()  # of the cross-entropy
        recombined = self._recombined(prediction.votes, batch, totals) * totals["weights"] / rows
        return {"tcmax_loss": self.config.weight * (recombined - own / rows).to(own.dtype)}

    def _recombined(self, votes: Tensor, batch: DialogueBatch, totals: Mapping[str, Tensor]) -> Tensor:
        """Return this part's share of the log of the mean over recombined utterances, summed over labels.

        Its gradient on a vote needs only sums over all ranks: P(y) exp v_m[j, y] / sum_j exp v_m[j, y], where P(y) is
        the share of label y in that mean.
        """
        bias = self._bias(votes)
        logs = (totals["exps"].clamp_min(1e-300) / totals["rows"].clamp_min(1)).log().sum(dim=0) + bias.detach()
        shares = logs.softmax(dim=-1)
        row_share = self._rows(batch).sum() / totals["rows"].clamp_min(1)
        moving = (shares * self._exps(votes, batch).sum(dim=1) / totals["exps"].clamp_min(1e-300)).sum()
        moving = moving + row_share * (shares * bias).sum()
        # The value is this part's share of the log; the gradient is that of `moving`.
        return moving - moving.detach() + row_share * logs.logsumexp(dim=-1)

    def _exps(self, votes: Tensor, batch: DialogueBatch) -> Tensor:
        """Return exp of the weighted votes of labelled utterances, ``(M, N, C)``, in double precision."""
        weighted = self.info.model.fusion.weigh_votes(votes).double()
        return weighted.exp() * self._rows(batch)[None, :, None]

    def _bias(self, votes: Tensor) -> Tensor:
        fusion = self.info.model.fusion
        assert isinstance(fusion, Fusion)  # the config refuses another one
        bias: Tensor | None = fusion.classifier.bias
        return votes.new_zeros(votes.shape[-1]) if bias is None else bias

    def _rows(self, batch: DialogueBatch) -> Tensor:
        return (batch.labels != UNLABELLED).double()

    def _weights(self, batch: DialogueBatch) -> Tensor:
        """Return the weight of each utterance in the cross-entropy, ``(N,)``."""
        weights = self.info.class_weights
        rows = self._rows(batch)
        return rows if weights is None else rows * weights[batch.labels.clamp_min(0)]
