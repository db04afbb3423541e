"""A dialogue that is predicted turn by turn: a causal model whose context is carried as sums, not encoded again.

The cost and memory of a turn do not depend on the turns before it. Predictions equal those of the causal model for the
whole dialogue in one batch, up to rounding.

Shape letters in this file:
    M modalities     S speakers     V values: all widths and a count for each modality     K rank of AFW
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.errors import ConfigError, DataError
from ada2i.modalities import MODALITIES, Modality
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.model.afw import AdaptiveFeatureWeighting, Average, CausalAverage, FeatureWeighting, counted, means_of
from ada2i.model.amw import Fusion
from ada2i.model.relational import Neighbours, RelationalEncoder

State = dict[str, Tensor]


class LiveDialogue:
    """One dialogue and what it carries from turn to turn. Several dialogues may share a model.

    Args:
        model: A causal model with the relational encoder, such as one of the preset `causal`; it is put in eval mode.
        speakers: Speakers whose own past is known at a time. One more takes the place of the speaker who was silent for
            the longest; that one's turns still count as those of others, and after a return only the new ones are its
            own. Up to this number the predictions are exact.

    Raises:
        ConfigError: The model is not causal, or its encoder or fusion needs all earlier utterances.
    """

    def __init__(self, model: Ada2I, *, speakers: int = 16) -> None:
        neighbours = _checked(model)
        self._widths: dict[Modality, int] = {m: int(model.encoders[m].width) for m in model.modalities}  # type: ignore[arg-type]
        self._device = next(model.parameters()).device
        self._state = self._start(model.afw, len(neighbours.decays), speakers)
        self._network = Ada2I(
            input_norms=dict(model.standardise.items()),  # type: ignore[arg-type]
            encoders=dict(model.encoders.items()),  # type: ignore[arg-type]
            encode=model.encode,
            extend=_CarriedNeighbours(neighbours, self._state),
            mask_missing=model.mask_missing,
            afw=_carried(model.afw, self._state),
            fusion=model.fusion,
            unimodal_votes=model.unimodal_votes,
            head=model.head,
            signs=model.signs,
        ).eval()

    @property
    def turns(self) -> int:
        """Number of turns so far."""
        return int(self._state["turns"])

    @torch.no_grad()
    def turn(self, features: Mapping[Modality, Tensor | None], speaker: int) -> Prediction:
        """Predict the next utterance, and remember it.

        Args:
            features: By modality, ``(D,)`` floats; a modality that is None or left out is missing. Modalities that the
                model does not read are ignored.
            speaker: Any number of up to 63 bits that names the speaker within this dialogue.

        Returns:
            The prediction of one utterance.

        Raises:
            DataError: A modality is unknown, or a vector has another width or values that are not finite, or too large
                to predict from. The dialogue is as before the call.
        """
        vectors = {m: self._vector(features.get(m), m) for m in self._widths}
        if unknown := set(features) - set(MODALITIES):
            raise DataError(f"Features must be those of {', '.join(MODALITIES)}, but name {min(unknown)!r}. Rename it.")
        before = self.state()
        slot = torch.tensor([self._slot(speaker)], device=self._device)
        batch = DialogueBatch(
            features={m: x[None] for m, x in vectors.items()},
            present={m: torch.tensor([features.get(m) is not None], device=self._device) for m in vectors},
            labels=torch.zeros_like(slot),
            speakers=slot,
            layout=Layout((1,), 1, self._device),
            global_utterances=1,
            global_dialogues=1,
        )
        found: Prediction = self._network(batch)
        if not all(tensor.isfinite().all() for tensor in (found.logits, *self._state.values())):
            self.restore(before)
            raise DataError(
                "A vector must be small enough for the model to compute with, but the prediction is not finite. "
                "Correct the vector: the encoder of the model's features gives none that large."
            )
        return found

    def state(self) -> State:
        """Return a copy of what the dialogue carries, from which ``restore`` continues; a few small tensors."""
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def restore(self, state: State) -> None:
        """Continue from a state of the same model with the same number of speakers.

        Raises:
            DataError: It is the state of another model, or not finite.
        """
        for name in self._state | state:
            own, given = self._state.get(name), state.get(name)
            if own is None or given is None or (own.shape, own.dtype) != (given.shape, given.dtype):
                raise DataError(
                    "The state of a live dialogue must come from the same model, with the same number of speakers, but "
                    f"`{name}` differs. Start a new dialogue."
                )
            if not given.isfinite().all():
                raise DataError(
                    f"`{name}` of a live dialogue's state must be finite, but is not. Start a new dialogue."
                )
        for name, tensor in self._state.items():
            tensor.copy_(state[name])

    def _start(self, afw: FeatureWeighting, decays: int, speakers: int) -> State:
        """Return the state before the first turn.

        ``past.I`` ``(1, S + 1, V)``: the sums of decay I by speaker, last those of forgotten ones; ``dialogue``
        ``(1, 1, V)``; ``weighting.L`` ``(M, 1, K * K + 1)`` float64: the sums and counts of AFW's layer L; ``speakers``
        and ``heard`` ``(S,)``: the speaker of a slot and its last turn, from 1; ``turns``, a scalar.
        """
        values, device = sum(self._widths.values()) + len(self._widths), self._device
        ranks = [layer.rank for layer in getattr(afw, "layers", ())]
        return {
            **{f"past.{i}": torch.zeros(1, speakers + 1, values, device=device) for i in range(decays)},
            "dialogue": torch.zeros(1, 1, values, device=device),
            # A sum over thousands of turns needs more digits than the turns have.
            **{
                f"weighting.{i}": torch.zeros(len(self._widths), 1, k * k + 1, dtype=torch.float64, device=device)
                for i, k in enumerate(ranks)
            },
            "speakers": torch.zeros(speakers, dtype=torch.int64),
            "heard": torch.zeros(speakers, dtype=torch.int64),
            "turns": torch.zeros((), dtype=torch.int64),
        }

    def _vector(self, given: Tensor | None, modality: Modality) -> Tensor:
        width = self._widths[modality]
        if given is None:
            return torch.zeros(width, device=self._device)
        if given.shape != (width,) or not given.isfinite().all():
            what = "values that are not finite" if given.shape == (width,) else f"the shape {tuple(given.shape)}"
            raise DataError(
                f"The vector of {modality} must have {width} finite values, but has {what}. Use the encoder of the "
                "model's features.",
                modality=modality,
            )
        return given.to(self._device, torch.float32)

    def _slot(self, speaker: int) -> int:
        """Return the slot of a speaker, whose turn this is; a new one takes that of the longest silent one."""
        speakers, heard, turns = (self._state[name] for name in ("speakers", "heard", "turns"))
        held = (speakers == speaker) & (heard > 0)
        slot = int(held.int().argmax() if held.any() else heard.argmin())
        if not held[slot]:
            for name, sums in self._state.items():
                if name.startswith("past."):
                    sums[:, -1] += sums[:, slot]
                    sums[:, slot] = 0
        speakers[slot], heard[slot] = speaker, turns.add_(1)
        return slot


class _CarriedNeighbours(Neighbours):
    """Means over the turns before, which are sums of a state, and the turn itself."""

    def __init__(self, like: Neighbours, state: State) -> None:
        super().__init__(decays=like.decays, dialogue_decay=like.dialogue_decay, causal=True)
        self.states = [*(state[f"past.{i}"] for i in range(len(like.decays))), state["dialogue"]]

    def _sums(self, values: Tensor, layout: Layout, speakers: Tensor) -> Tensor:  # noqa: ARG002
        hot = torch.nn.functional.one_hot(speakers, self.states[0].shape[1]).float()
        return self.past_sums(values[None], hot[None], self.states)[0].transpose(0, 1)


def _carried(afw: FeatureWeighting, state: State) -> FeatureWeighting:
    """Return AFW whose means go on from turn to turn."""
    if not isinstance(afw, AdaptiveFeatureWeighting):
        return afw
    layers = list(afw.layers)
    states = [state[f"weighting.{i}"] for i in range(len(layers))]

    def averaging(layout: Layout, present: Tensor | None, dtype: torch.dtype) -> Average:  # noqa: ARG001
        there = None if present is None else present[..., None].to(dtype)
        return _Running(iter(states), there)

    return AdaptiveFeatureWeighting(layers, averaging)  # type: ignore[arg-type]


class _Running:
    """An ``Average`` of one turn: each layer, in order, adds to its sums."""

    def __init__(self, states: Iterator[Tensor], present: Tensor | None) -> None:
        self.states, self.present = states, present

    def __call__(self, theta: Tensor) -> Tensor:
        sums = next(self.states).add_(counted(theta, self.present))
        return means_of(sums.to(theta.dtype), theta)


def is_carried(model: Ada2I) -> bool:
    """Return whether ``LiveDialogue`` takes a model."""
    try:
        _checked(model)
    except ConfigError:
        return False
    return True


def _checked(model: Ada2I) -> Neighbours:
    """Return the relations of a model; refuse one without a state of constant size."""
    neighbours: object = model.extend
    relational = all(isinstance(encoder, RelationalEncoder) for encoder in model.encoders.values())
    if not relational or not isinstance(neighbours, Neighbours) or not isinstance(model.fusion, Fusion):
        raise ConfigError(
            "A live dialogue needs a model whose context is carried as sums, `model.encoder.kind=relational` with "
            "`model.fusion=ada2i`, but this model's encoder or fusion needs all earlier utterances. Train one with "
            "`--preset causal`.",
            field="model.encoder.kind",
        )
    weighting = model.afw
    average = weighting.averaging if isinstance(weighting, AdaptiveFeatureWeighting) else CausalAverage
    if not neighbours.causal or average is not CausalAverage:
        raise ConfigError(
            "A live dialogue needs a model that sees no later utterances, but `model.encoder.causal` of this one is "
            "false. Train one with `--preset causal`.",
            field="model.encoder.causal",
        )
    return neighbours
