"""Unimodal encoders: context from a dialogue's other utterances, one modality at a time (paper, section 3.2).

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     T longest dialogue
    D width of the modality's features     H hidden width     A attention heads
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.model.attention import Masks, dialogue_attention, visibility

_SPEAKERS = 10  # with a vector of their own; MELD's dialogues have up to 9


def head_count(width: int) -> int:
    """Return the attention heads for a feature width: its smallest divisor in 5..14, else 1 (released code)."""
    return next((heads for heads in range(5, 15) if width % heads == 0), 1)


class TransformerEncoder(nn.Module):
    """Post-norm transformer of the features' own width, then a linear map to the hidden width.

    Every matrix product of weights runs over utterances laid end to end.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden_dim: int,
        layers: int,
        feedforward_dim: int,
        dropout: float,
        attend_to_padding: bool,
        positions: bool = False,
        speakers: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.attend_to_padding = attend_to_padding
        self.positions = positions
        self.causal = causal
        self.speakers = nn.Embedding(_SPEAKERS, width) if speakers else None
        first = TransformerLayer(width=width, heads=head_count(width), feedforward_dim=feedforward_dim, dropout=dropout)
        # All layers start from equal weights, as torch's own nn.TransformerEncoder makes them.
        self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(layers - 1))])
        self.project = nn.Linear(width, hidden_dim)

    def forward(
        self, features: Tensor, layout: Layout, speakers: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Encode each dialogue.

        Args:
            features: ``(N, D)`` float features.
            layout: Which rows belong to which dialogue.
            speakers: ``(N,)`` int64, numbered within each dialogue; read where the encoder knows speakers.
            present: ``(N,)`` bool: only what is there is attended to. None: all is.

        Returns:
            ``(N, H)``; with ``attend_to_padding`` the whole grid, ``(S, H)``, since padding was encoded too.
        """
        if self.positions:
            features = features + sinusoids(layout.position, features.shape[-1])
        if self.speakers is not None and speakers is not None:
            features = features + self.speakers(speakers.clamp_max(_SPEAKERS - 1))
        if self.attend_to_padding:
            features, layout = layout.pad(features), layout.full
        visible = visibility(layout, present, causal=self.causal)
        for layer in self.layers:
            features = layer(features, layout, visible)
        return self.project(features)  # type: ignore[no-any-return]


def sinusoids(position: Tensor, width: int) -> Tensor:
    """Return ``(N, D)`` sines and cosines of each position (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=position.device) * (-math.log(10000.0) / width))
    angles = position[:, None] * rates  # (N, ceil(D / 2))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class TransformerLayer(nn.Module):
    """Self-attention within each dialogue and a feed-forward map, each with dropout, residual and layer norm."""

    def __init__(self, *, width: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.expand = nn.Linear(width, feedforward_dim)
        self.contract = nn.Linear(feedforward_dim, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_norm = nn.LayerNorm(width)
        # As torch's nn.MultiheadAttention starts, on which the released code builds.
        nn.init.xavier_uniform_(self.attention_in.weight)
        nn.init.zeros_(self.attention_in.bias)
        nn.init.zeros_(self.attention_out.bias)

    def forward(self, x: Tensor, layout: Layout, visible: Masks) -> Tensor:
        """Map ``(R, D)`` to ``(R, D)``; see ``visibility``."""
        attended = dialogue_attention(
            self.attention_in(x), layout, visible, heads=self.heads, dropout_p=self.dropout if self.training else 0.0
        )
        x = self.attention_norm(x + self._drop(self.attention_out(attended)))
        expanded = self._drop(F.relu(self.expand(x)))
        return self.feedforward_norm(x + self._drop(self.contract(expanded)))  # type: ignore[no-any-return]

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class LstmEncoder(nn.Module):
    """Bidirectional LSTM over each dialogue: the released code's alternative encoder."""

    attend_to_padding = False

    def __init__(self, *, width: int, hidden_dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            width,
            hidden_dim // 2,
            num_layers=layers,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
            batch_first=True,
        )

    def forward(
        self,
        features: Tensor,
        layout: Layout,
        speakers: Tensor | None = None,  # noqa: ARG002 - the transformer's
        present: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Encode each dialogue: ``(N, D)`` to ``(N, H)``."""
        dialogues = list(torch.split(features, list(layout.lengths)))
        packed = nn.utils.rnn.pack_sequence(dialogues, enforce_sorted=False)
        encoded, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=layout.padded_length
        )  # (B, T, H)
        return layout.unpad(encoded.flatten(0, 1))
