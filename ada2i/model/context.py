"""The encoder of preset `corrected`: a pre-norm transformer that starts as an average over neighbouring utterances.

Emotion has inertia: an utterance is mostly similar to those around it. A post-norm transformer with random attention
must discover this, and on corpora of a thousand utterances it overfits first. This encoder starts from it:
values pass unchanged, attention decreases with distance, and the rest (content, feed-forward) starts near zero and is
learned.

Shape letters in this file:
    N utterances     B dialogues     T longest dialogue     D width of the modality's features     H hidden width
    A attention heads
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.model.attention import Masks, dialogue_attention, visibility
from ada2i.model.encoders import head_count

_REACH = 8  # utterances; all farther ones count as equally far
_FALL = 0.5  # initial decrease of attention's logits per utterance of distance
_QUIET = 0.1  # factor of the initial query and key weights, so that content has little initial effect


class ContextEncoder(nn.Module):
    """Pre-norm transformer of the features' own width with relative positions, then a linear map."""

    def __init__(
        self,
        *,
        width: int,
        hidden_dim: int,
        layers: int,
        feedforward_dim: int,
        dropout: float,
        input_dropout: float = 0.0,
        inertia: float = 0.4,
        positions: bool = True,
        speakers: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.input_dropout = input_dropout
        self.causal = causal
        self.layers = nn.ModuleList(
            ContextLayer(
                width=width,
                heads=head_count(width),
                feedforward_dim=feedforward_dim,
                dropout=dropout,
                inertia=inertia,
                positions=positions,
                speakers=speakers,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, hidden_dim)

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``."""
        x = dropout(features, self.input_dropout, self.training)
        visible = visibility(layout, present, causal=self.causal)
        for layer in self.layers:
            x = layer(x, layout, visible, speakers)
        return self.project(self.norm(x))  # type: ignore[no-any-return]


class ContextLayer(nn.Module):
    """Attention within each dialogue and a feed-forward map, each after a norm and with a residual."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        feedforward_dim: int,
        dropout: float,
        inertia: float,
        positions: bool,
        speakers: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feedforward_dim)
        self.contract = nn.Linear(feedforward_dim, width)
        # Logits by distance, earlier utterances first; and the term added if the speaker is the same.
        far = torch.arange(-_REACH, _REACH + 1).abs() * -_FALL
        self.distance = nn.Parameter(far.repeat(heads, 1)) if positions else None
        self.same_speaker = nn.Parameter(torch.zeros(heads)) if speakers else None
        self._start_near_the_neighbours(inertia)

    def forward(self, x: Tensor, layout: Layout, visible: Masks, speakers: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, D)``; ``visible`` as ``visibility`` returns it."""
        masks = [
            self._mask(x.dtype, part.layout, seen, part.grid(speakers))
            for part, seen in zip(layout.parts, visible, strict=True)
        ]
        projected = self.attention_in(self.attention_norm(x))
        attended = dialogue_attention(projected, layout, masks, heads=self.heads, dropout_p=0.0)
        x = x + self._drop(self.attention_out(attended))
        expanded = self._drop(F.relu(self.expand(self.feedforward_norm(x))))
        return x + self._drop(self.contract(expanded))

    def _mask(self, dtype: torch.dtype, layout: Layout, visible: Tensor | None, speakers: Tensor) -> Tensor | None:
        """Return a part's mask, ``(1 or B, A, T, T)`` logits or ``visible``; ``speakers`` is ``(B, T)``."""
        bias: Tensor | None = None
        if self.distance is not None:
            place = torch.arange(layout.padded_length, device=self.distance.device)
            steps = (place[None, :] - place[:, None]).clamp(-_REACH, _REACH) + _REACH  # (T, T)
            # A product rather than a lookup: its backward pass is deterministic on a GPU.
            bias = (F.one_hot(steps, 2 * _REACH + 1).to(dtype) @ self.distance.T).permute(2, 0, 1)[None]
        if self.same_speaker is not None:
            same = (speakers[:, :, None] == speakers[:, None, :]).to(dtype)[:, None]  # (B, 1, T, T)
            by_speaker = same * self.same_speaker[:, None, None]
            bias = by_speaker if bias is None else bias + by_speaker
        if bias is None or visible is None:
            return visible if bias is None else bias
        return bias.masked_fill(~visible, float("-inf"))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)

    def _start_near_the_neighbours(self, inertia: float) -> None:
        width = self.attention_out.in_features
        nn.init.xavier_uniform_(self.attention_in.weight)
        with torch.no_grad():
            self.attention_in.weight[: 2 * width].mul_(_QUIET)
            nn.init.eye_(self.attention_in.weight[2 * width :])
            self.attention_out.weight.copy_(inertia * torch.eye(width))
        for layer in (self.attention_in, self.attention_out, self.contract):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.contract.weight)
