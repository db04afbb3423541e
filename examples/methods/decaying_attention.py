"""Attention whose logits fall with distance, at a learned rate for each direction and for same and other speakers.

    ada2i train FEATURES --set model.encoder=examples.methods.decaying_attention:DecayingAttention

It starts as the relational encoder: four heads attend to past or next utterances of the same speaker or of others,
the fifth to the whole dialogue. What each head attends to, how fast its weights fall, and the effect of content are
learned.

Shape letters in this file:
    N utterances     B dialogues     T longest dialogue     D width of the modality     H hidden width
    A attention heads, 5     K kinds of neighbour: past same, past other, next same, next other, the utterance itself
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout

_KEY = 16  # width of a head's queries and keys
_SUPPRESSED, _NONE = -8.0, -6.0  # initial logits of the kinds that a head leaves out, and of attending to nothing
_NEAR, _FAR = 3.0, 15.0  # utterances after which a weight has fallen to 1/e, at the start


class DecayingAttention(nn.Module):
    """The own vector and the heads' means of the dialogue's vectors, then one hidden layer.

    Args:
        width: D.
        hidden_dim: H.
        feedforward_dim: Width of the hidden layer.
        dropout: Of the hidden layer.
        input_dropout: Of the vectors.
        causal: Attend to past utterances only.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden_dim: int,
        feedforward_dim: int,
        dropout: float,
        input_dropout: float,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        heads, kinds = 5, 5
        chosen = torch.cat([torch.eye(kinds)[:4], torch.ones(1, kinds)])  # (A, K)
        self.offset = nn.Parameter((1 - chosen) * _SUPPRESSED)
        decays = torch.tensor([_NEAR] * 4 + [_FAR])[:, None].expand(heads, kinds)
        self.rate = nn.Parameter(torch.log(torch.expm1(1 / decays)))  # softplus of it is 1 / decay
        self.nothing = nn.Parameter(torch.full((heads,), _NONE))
        self.query, self.key = nn.Linear(width, heads * _KEY), nn.Linear(width, heads * _KEY)
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight, gain=0.1)
        self.drop = nn.Dropout(input_dropout)
        self.stages = nn.Sequential(
            nn.Linear(width * (1 + heads), feedforward_dim),
            nn.LayerNorm(feedforward_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_dim, hidden_dim),
        )

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor) -> Tensor:
        """Encode ``(N, D)`` features as ``(N, H)``; see ``ada2i.model.own.OwnEncoder``."""
        query, key = self.query(features), self.key(features)
        grids = []
        for part in layout.parts:
            seen = part.layout.occupied & part.grid(present)
            weights = self._weights(part.grid(query), part.grid(key), part.grid(speakers), seen)
            means = weights @ part.grid(features)[:, None]  # (B, A, T, D)
            grids.append(means.transpose(1, 2).flatten(2).flatten(0, 1))
        means = layout.from_grids(torch.cat(grids))
        return self.stages(self.drop(torch.cat([features, means], dim=1)))  # type: ignore[no-any-return]

    def _weights(self, query: Tensor, key: Tensor, speakers: Tensor, seen: Tensor) -> Tensor:
        """Return the heads' weights, ``(B, A, T, T)``, from ``(B, T, ...)``; a row may sum to less than 1."""
        place = torch.arange(speakers.shape[1], device=speakers.device)
        ahead = place[None, :] - place[:, None]  # (T, T), from a row to its neighbour
        other = (speakers[:, :, None] != speakers[:, None, :]).long()
        kind = torch.where(ahead == 0, 4, 2 * (ahead > 0) + other)  # (B, T, T)
        hot = F.one_hot(kind, 5).to(query.dtype)  # a product, not a lookup: deterministic on a GPU
        fall = (hot @ F.softplus(self.rate).T) * ahead.abs()[None, :, :, None]
        bias = (hot @ self.offset.T - fall).permute(0, 3, 1, 2)  # (B, A, T, T)
        heads = len(self.nothing)
        content = torch.einsum("bihd,bjhd->bhij", query.unflatten(2, (heads, -1)), key.unflatten(2, (heads, -1)))
        logits = bias + content / _KEY**0.5
        visible = seen[:, None, None, :]
        if self.causal:
            visible = visible & (ahead <= 0)
        logits = logits.masked_fill(~visible, float("-inf"))
        nothing = self.nothing[None, :, None, None].expand(*logits.shape[:3], 1)
        return torch.cat([logits, nothing], dim=3).softmax(dim=3)[..., :-1]
