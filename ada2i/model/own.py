"""Encoders and fusions of the caller's own: their protocols, and the modules that hold them in the network.

Shape letters in this file:
    N utterances of all dialogues, laid end to end     M modalities     D width of a modality     H hidden width
    C classes
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ada2i.batch import Layout
from ada2i.modalities import Modality


class OwnEncoder(Protocol):
    """A module that encodes one modality; each modality has a module of its own.

    Its constructor is called with those of ``width`` (D), ``hidden_dim`` (H), ``layers``, ``feedforward_dim``,
    ``dropout``, ``input_dropout`` and ``causal`` that it names, and with ``model.encoder.options``.
    """

    def __call__(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor) -> Tensor:
        """Encode each utterance, in the context of its dialogue only.

        Args:
            features: ``(N, D)`` float32; zeros where the modality is missing.
            layout: The rows of each dialogue: ``layout.lengths``, ``layout.dialogue``.
            speakers: ``(N,)`` int64, numbered within each dialogue.
            present: ``(N,)`` bool: the utterances that have the modality.

        Returns:
            ``(N, H)`` float32.
        """


class OwnFusion(Protocol):
    """A module that predicts from the encoded modalities, in place of feature and modality weighting.

    Its constructor is called with those of ``modalities``, ``hidden_dim`` (H), ``classes`` (C) and ``dropout`` that it
    names, and with ``model.fusion_options``.
    """

    def __call__(
        self, encoded: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor], layout: Layout
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the emotion of each utterance.

        Args:
            encoded: By modality, ``(N, H)`` float32; zeros where the modality is missing.
            present: By modality, ``(N,)`` bool.
            layout: The rows of each dialogue.

        Returns:
            Logits ``(N, C)`` float32, or these and the vote of each modality, ``(M, N, C)``, in the order of
            ``encoded``. Without votes, a modality's vote is the prediction from that modality alone.
        """


class EncoderHolder(nn.Module):
    """Calls an ``OwnEncoder`` as the network calls an encoder."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``; ``(N, H)``."""
        encoded: Tensor = self.own(features, layout, speakers, _there(present, features))
        return encoded


class FusionHolder(nn.Module):
    """Calls an ``OwnFusion`` as the network calls ``amw.Fusion``."""

    def __init__(self, own: nn.Module, classes: int, modalities: tuple[Modality, ...]) -> None:
        super().__init__()
        self.own = own
        self.classes = classes
        self.modalities = modalities

    def predict(self, features: Tensor, present: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return each modality's vote, ``(M, N, C)``, and the logits, ``(N, C)``."""
        there = self._there(features, present)
        shown = {m: x * there[m][:, None] for m, x in self._named(features).items()}
        found = self.own(shown, there, layout)
        if isinstance(found, tuple):
            return _masked(found[1], there), found[0]
        return self._from_each(shown, there, layout, train=True), found

    def weigh_votes(self, votes: Tensor) -> Tensor:
        """See ``amw.Fusion``."""
        return votes

    def alone(self, features: Tensor, layout: Layout, *, train_head: bool) -> Tensor:
        """See ``amw.Fusion``."""
        return self._from_each(self._named(features), self._there(features, None), layout, train=train_head)

    def _named(self, rows: Tensor) -> dict[Modality, Tensor]:
        return dict(zip(self.modalities, rows.unbind(), strict=True))

    def _there(self, features: Tensor, present: Tensor | None) -> dict[Modality, Tensor]:
        everything = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return self._named(everything if present is None else present)

    def _from_each(
        self, features: Mapping[Modality, Tensor], there: Mapping[Modality, Tensor], layout: Layout, *, train: bool
    ) -> Tensor:
        """Return each modality's vote if the others are missing, ``(M, N, C)``."""
        weights = {name: p if train else p.detach() for name, p in self.own.named_parameters()}
        votes = []
        for place, chosen in enumerate(features):
            only = {m: x if m == chosen else torch.zeros_like(x) for m, x in features.items()}
            known = {m: x if m == chosen else torch.zeros_like(x) for m, x in there.items()}
            found = functional_call(self.own, weights, (only, known, layout))
            votes.append(found[1][place] if isinstance(found, tuple) else found)
        return _masked(torch.stack(votes), there)


def _there(present: Tensor | None, rows: Tensor) -> Tensor:
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device) if present is None else present


def _masked(votes: Tensor, there: Mapping[Modality, Tensor]) -> Tensor:
    return votes * torch.stack(list(there.values()))[:, :, None]
