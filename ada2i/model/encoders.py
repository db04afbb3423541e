"""Unimodal encoders: context from a dialogue's other utterances, one modality at a time (paper, section 3.2).

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     T longest dialogue
    D width of the modality's features     H hidden width     A attention heads
"""

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.model.attention import Masks, dialogue_attention, visibility


class Encoder(Protocol):
    """Encodes each dialogue of one modality; encoders with parameters are modules, and wrappers may change the rows."""

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """Encode each dialogue.

        Args:
            features: ``(N, D)`` float features.
            layout: The rows of each dialogue.
            speakers: ``(N,)`` int64, numbered within each dialogue; ignored by encoders without speaker information.
            present: ``(N,)`` bool: only utterances that have the modality are attended to. None: all are.

        Returns:
            ``(N, H)``; ``(S, H)`` from wrappers that return the padded grid.
        """


@dataclass(frozen=True)
class SeesPadding:
    """Encodes the padded grid: an utterance attends to the zeros after its dialogue (released code)."""

    encode: Encoder

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``; ``(S, H)``."""
        return self.encode(layout.pad(features), layout.full, layout.pad(speakers), present)


@dataclass(frozen=True)
class Padded:
    """Pads the rows that an encoder returns to the grid."""

    encode: Encoder

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``; ``(S, H)``."""
        return layout.pad(self.encode(features, layout, speakers, present))


@dataclass(frozen=True)
class Unpadded:
    """Takes the rows out of the grid that an encoder returns."""

    encode: Encoder

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``; ``(N, H)``."""
        return layout.unpad(self.encode(features, layout, speakers, present))


@dataclass(frozen=True)
class Autocast:
    """Encodes in bfloat16, into float32.

    The encoders do nearly all the work; weighting and votes, where small differences matter, stay in float32.
    """

    encode: Encoder

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``."""
        with torch.autocast(features.device.type, torch.bfloat16):
            return self.encode(features, layout, speakers, present).float()


@dataclass(frozen=True)
class Rounded:
    """Adds empty rows on a CPU, so that only few different row counts occur (``fast.buckets``)."""

    encode: Encoder

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``."""
        if features.device.type != "cpu":
            return self.encode(features, layout, speakers, present)
        extra = sum(layout.rounded.lengths) - len(features)
        present = None if present is None else F.pad(present, (0, extra))
        encoded = self.encode(F.pad(features, (0, 0, 0, extra)), layout.rounded, F.pad(speakers, (0, extra)), present)
        return encoded[: len(encoded) - extra]


def head_count(width: int) -> int:
    """Return the attention heads for a feature width: its smallest divisor in 5..14, else 1 (released code)."""
    return next((heads for heads in range(5, 15) if width % heads == 0), 1)


class TransformerEncoder(nn.Module):
    """Post-norm transformer of the features' own width, then a linear map to the hidden width.

    Every matrix product of weights runs over concatenated utterances.
    """

    def __init__(
        self, *, width: int, hidden_dim: int, layers: int, feedforward_dim: int, dropout: float, causal: bool = False
    ) -> None:
        super().__init__()
        self.causal = causal
        first = TransformerLayer(width=width, heads=head_count(width), feedforward_dim=feedforward_dim, dropout=dropout)
        # All layers start from equal weights, as in torch's nn.TransformerEncoder.
        self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(layers - 1))])
        self.project = nn.Linear(width, hidden_dim)

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:  # noqa: ARG002
        """See ``Encoder``."""
        visible = visibility(layout, present, causal=self.causal)
        for layer in self.layers:
            features = layer(features, layout, visible)
        return self.project(features)  # type: ignore[no-any-return]


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
    """Bidirectional LSTM over each dialogue: the released code's alternative encoder, tested by a golden vector."""

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

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:  # noqa: ARG002
        """See ``Encoder``."""
        dialogues = list(torch.split(features, list(layout.lengths)))
        packed = nn.utils.rnn.pack_sequence(dialogues, enforce_sorted=False)
        encoded, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=layout.padded_length
        )  # (B, T, H)
        return layout.unpad(encoded.flatten(0, 1))
