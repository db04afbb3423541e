"""Every config model and its checks.

Models are frozen and refuse unknown fields. Defaults are those of the `reference` preset if they are the same for all
datasets; fields that depend on the dataset have no default and come from ``ada2i.presets``.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from ada2i.modalities import Modality

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Distance = Annotated[float, Field(ge=0.1, le=1e4)]

OWN: Final = "package.module:Class"
OWN_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _or_own(*known: str) -> AfterValidator:
    """Return a check that a name is a known one or that of a class of the caller's own; nothing is imported."""

    def check(name: str) -> str:
        if name in known or (len(name) <= 200 and OWN_NAME.fullmatch(name)):
            return name
        raise ValueError(f"must be {', '.join([*known, OWN])}")

    return AfterValidator(check)


Options = dict[Annotated[str, StringConstraints(pattern=r"^[a-z]\w*$")], JsonValue]


def _options() -> Any:
    described = "Arguments of a class of your own: docs/methods.md."
    return Field(default_factory=dict, exclude_if=lambda options: not options, description=described)


class Config(BaseModel):
    """Base of all config models: frozen, unknown fields refused.

    Attributes:
        removed: Fields that older versions stored, each with the only value for which a stored config still loads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    removed: ClassVar[Mapping[str, object]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        for name in cls.removed.keys() & given.keys():
            if given[name] != cls.removed[name]:
                raise ValueError(
                    f"`{name}` was removed and must be {cls.removed[name]!r}, but is {given[name]!r}. Use the version "
                    "of ada2i that wrote this config"
                )
        return {name: value for name, value in given.items() if name not in cls.removed}


class EncoderConfig(Config):
    """One encoder per modality."""

    kind: Annotated[str, _or_own("transformer", "lstm", "context", "relational")] = Field(
        "transformer",
        description="Post-norm transformer (paper), LSTM (released code's alternative), `context`: a pre-norm "
        "transformer that starts as an average over neighbours, `relational`: decayed means of past and next "
        f"utterances of the same and of other speakers; or {OWN}: docs/methods.md.",
    )
    options: Options = _options()
    layers: int = Field(2, ge=0, description="Layers; 0 only for `relational`, which is then linear.")
    feedforward_dim: Positive = Field(2048, description="Width inside a layer.")
    dropout: Fraction = 0.5
    input_dropout: Fraction = Field(
        0.0, description="For `context` and `relational`: share of input values dropped in training."
    )
    decays: tuple[Distance, ...] = Field(
        (3.0,), description="For `relational`: distances, in utterances, at which a neighbour's weight is 1/e."
    )
    dialogue_decay: Distance = Field(15.0, description="For `relational`: the same for the mean of the dialogue.")
    inertia: float = Field(0.0, ge=0.0, description="For `context`: weight of the neighbours' average at the start.")
    attend_to_padding: bool = Field(
        True, description="A transformer sees the zeros that pad a batch, as in the released code; false masks them."
    )
    positions: bool = Field(False, description="For `context`: attention uses distances.")
    speakers: bool = Field(False, description="For `context`: attention uses whether the speaker is the same.")
    causal: bool = Field(False, description="An utterance sees itself and earlier ones only, in encoder and AFW.")


class AfwConfig(Config):
    """Adaptive feature weighting."""

    layers: Positive = 2
    rank: Positive
    beta: float = Field(ge=0.0, description="Weight of the unweighted feature.")
    dropout: Fraction = 0.5
    average_padding: bool = Field(
        True, description="Means and the mapping loss run over the padded time axis, as in the released code."
    )
    key_dim: Positive | None = Field(None, description="d_k: Theta is divided by its square root; null: no scale.")
    normalise: bool = Field(False, description="Layer norm before the maps q and k, and of the contracted tensor.")
    quiet_start: bool = Field(False, description="The gate starts near `beta`, and its attention near 0.")
    order: Literal["listed", "cyclic"] = Field(
        "listed",
        description="Order of contracting the other modalities: theirs, or cyclic from the next one.",
    )
    target: Literal["weighted", "attention"] = Field(
        "weighted",
        description="Target of the mapping network: the weighted feature, as released, or the attention.",
    )


class AmwConfig(Config):
    """Adaptive modality weighting."""

    removed = {"learn_scale": False}

    normalise: Literal["classes", "hidden"] = Field(
        "classes", description="Normalise class weights over classes (released code), or over the width: cosines."
    )
    scale: float = Field(1.0, gt=0.0, description="Factor of each modality's vote.")
    bias: bool = Field(True, description="Add a bias per class to the sum of the votes.")
    weights: Literal["equal", "held-out"] = Field(
        "equal", description="Weight of votes: equal, or a probe's score on held-out train dialogues."
    )


class LossConfig(Config):
    """Weights of the loss terms; the feature loss is a mean over slots if AFW averages padding, or over utterances."""

    classification: float = Field(1.0, ge=0.0, description="Cross-entropy of the prediction.")
    modal: float = Field(
        0.0, ge=0.0, description="Cross-entropy of the votes' sum, in addition to the prediction by an MLP."
    )
    feature: float = Field(1.0, ge=0.0, description="L1 distance of AFW's mapping network.")
    class_balance: float = Field(
        0.0, ge=0.0, le=1.0, description="Cross-entropies weigh a class by its share of train to minus this power."
    )
    distillation: float = Field(
        0.0,
        ge=0.0,
        exclude_if=lambda weight: not weight,
        description="Cross-entropy of the teachers' mean probabilities; 0: these are not learned.",
    )
    distillation_temperature: float = Field(
        1.0,
        gt=0.0,
        exclude_if=lambda temperature: temperature == 1.0,
        description="Divides the logits of teachers and student in that term.",
    )


class AblationConfig(Config):
    """The paper's ablations; each switches off one part."""

    no_afw: bool = False
    no_amw: bool = False
    no_modulation: bool = Field(False, description="Neither modulation nor gradient noise.")


class ModelConfig(Config):
    """The network, except widths and classes, which the features determine."""

    removed = {"modality_dropout": 0.0}

    modalities: tuple[Modality, ...] = Field(
        ("text", "audio", "visual"), min_length=1, description="The order matters: `reference` contracts in this order."
    )
    hidden_dim: Positive
    encoder: EncoderConfig = EncoderConfig()
    fusion: Annotated[str, _or_own("ada2i")] = Field(
        "ada2i", description=f"AFW and AMW, or {OWN} in place of both: docs/methods.md."
    )
    fusion_options: Options = _options()
    afw: AfwConfig
    amw: AmwConfig = AmwConfig()
    prediction: Literal["sum", "mlp"] = Field("sum", description="The votes' sum, or an MLP with ReLU on it.")
    normalise: Literal["none", "train"] = Field("none", description="Standardise features by the statistics of train.")
    train_fitted: Literal["keep", "leave-out"] = Field(
        "keep", description="Keep or leave out modalities whose vectors were fitted to train labels."
    )
    mask_missing: bool = Field(False, description="A missing modality is not attended to and has no vote.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the encoders' matrix products; weights, updates and sums are float32."
    )

    @field_validator("modalities")
    @classmethod
    def _check_modalities(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if len(set(modalities)) != len(modalities):
            raise ValueError("Modalities must differ from one another")
        return modalities

    @model_validator(mode="after")
    def _check(self) -> Self:
        encoder = self.encoder
        if encoder.kind == "lstm" and self.hidden_dim % 2:
            raise ValueError(f"`hidden_dim` must be even for LSTM encoders (two directions), but is {self.hidden_dim}")
        if encoder.kind == "lstm" and encoder.causal:
            raise ValueError("`encoder.causal` needs an `encoder.kind` other than lstm, which reads both directions")
        if encoder.kind != "context" and (encoder.inertia or encoder.positions or encoder.speakers):
            raise ValueError("`encoder.inertia`, `.positions` and `.speakers` need `encoder.kind=context`")
        own = ":" in encoder.kind
        if encoder.kind not in ("context", "relational") and not own and encoder.input_dropout:
            raise ValueError("`encoder.input_dropout` needs `encoder.kind` context or relational")
        if encoder.kind != "relational" and not encoder.layers:
            raise ValueError("`encoder.layers` must be at least 1, unless `encoder.kind` is relational")
        if (encoder.causal or self.mask_missing) and (encoder.attend_to_padding or self.afw.average_padding):
            raise ValueError(
                "`encoder.causal` and `mask_missing` need `encoder.attend_to_padding` and `afw.average_padding` false"
            )
        if encoder.kind in ("context", "relational") and encoder.attend_to_padding:
            raise ValueError(
                f"`encoder.kind={encoder.kind}` needs `encoder.attend_to_padding` false: it never sees padding"
            )
        if (encoder.options and not own) or (self.fusion_options and ":" not in self.fusion):
            raise ValueError(f"`encoder.options` and `fusion_options` are for {OWN} in `encoder.kind` and `fusion`")
        return self

    @property
    def own_code(self) -> tuple[str, ...]:
        """The classes of the caller's own that the network needs, each once."""
        return tuple(dict.fromkeys(name for name in (self.encoder.kind, self.fusion) if ":" in name))


Ratio = Annotated[
    Literal["linear", "votes"],
    Field(description="The ratio's unimodal logits: un-normalised (released code), or AMW's votes."),
]


ActsOn = Annotated[
    Literal["gradient", "update"],
    Field(description="Apply modulation and noise to the gradient before Adam, as released, or to the update."),
]


class Ada2IBalance(Config):
    """Disparity ratio, modulation and noise."""

    method: Literal["ada2i"] = Field("ada2i", description="How modalities are balanced: see docs/training.md.")
    alpha: float = Field(ge=0.0, description="Strength of the modulation.")
    start_epoch: Positive = Field(4, description="First epoch, counted from 1, with modulation and noise.")
    ratio: Ratio = "linear"
    acts_on: ActsOn = "gradient"
    noise: bool = Field(
        True, description="Gaussian noise on the encoders' gradients, scaled by each gradient's standard deviation."
    )


class NoBalance(Config):
    """No balancing; the disparity ratio is only measured."""

    method: Literal["none"] = "none"
    ratio: Ratio = "linear"


class OgmGeBalance(Config):
    """OGM-GE: encoders ahead of the mean of the others learn more slowly, and all get noise."""

    method: Literal["ogm-ge"] = "ogm-ge"
    alpha: float = Field(0.3, ge=0.0, description="Strength of the modulation; 0: none.")
    start_epoch: Positive = Field(4, description="First epoch, counted from 1, with modulation and noise.")
    noise: bool = Field(True, description="Gaussian noise, scaled by each gradient's standard deviation.")
    acts_on: ActsOn = "gradient"
    ratio: Ratio = "linear"


class UnimodalBalance(Config):
    """A cross-entropy for each modality's vote, over the utterances that have the modality."""

    method: Literal["unimodal"] = "unimodal"
    weight: float = Field(0.5, ge=0.0, description="Weight of each modality's cross-entropy; 0: none.")
    ratio: Ratio = "linear"


class TcMaxBalance(Config):
    """TCMax: maximises the total correlation of the votes and the label."""

    method: Literal["tcmax"] = "tcmax"
    weight: float = Field(
        1.0, ge=0.0, le=1.0, description="Share of the objective in the classification loss; 0: cross-entropy alone."
    )
    ratio: Ratio = "linear"


class DglBalance(Config):
    """DGL: encoders learn from their own cross-entropy, the rest of the network from the joint loss."""

    method: Literal["dgl"] = "dgl"
    weight: float = Field(1.0, ge=0.0, description="Weight of each encoder's own cross-entropy.")
    joint: float = Field(
        0.0, ge=0.0, le=1.0, description="Factor of the joint loss's gradient on the encoders; 1: not reduced."
    )
    ratio: Ratio = "linear"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weight and not self.joint:
            raise ValueError("`weight` or `joint` must be above 0, or the encoders learn nothing")
        return self


class MmParetoBalance(Config):
    """MMPareto: each encoder's joint and own gradients are combined so that they do not oppose each other."""

    method: Literal["mmpareto"] = "mmpareto"
    weight: float = Field(1.0, ge=0.0, description="Weight of each modality's own cross-entropy; 0: method `none`.")
    alpha: float = Field(1.5, gt=0.0, description="Factor of the combined gradient.")
    ratio: Ratio = "linear"


class AgmBalance(Config):
    """AGM: an encoder is slowed while its lead is above the mean of the lead over all steps before."""

    method: Literal["agm"] = "agm"
    alpha: float = Field(1.0, ge=0.0, description="Strength of the modulation; 0: none.")
    largest: float = Field(2.0, ge=1.0, description="Largest factor: an encoder that is behind learns faster.")
    start_epoch: Positive = Field(1, description="First epoch, counted from 1, with modulation.")
    acts_on: ActsOn = "gradient"
    ratio: Ratio = "linear"


class ArlBalance(Config):
    """ARL: encoders of confident modalities that contribute little learn faster."""

    method: Literal["arl"] = "arl"
    weight: float = Field(1.0, ge=0.0, description="Weight of each modality's own cross-entropy.")
    strength: float = Field(1.0, ge=0.0, description="Factor of the modulation; 0: none.")
    temperature: float = Field(8.0, gt=0.0, description="Factor of the softmax's inputs; large: one modality only.")
    start_epoch: Positive = Field(6, description="First epoch, counted from 1, with modulation.")
    acts_on: ActsOn = "gradient"
    ratio: Ratio = "linear"


class SpclBalance(Config):
    """SPCL: easy, balanced utterances first; the others follow as a threshold grows by epochs."""

    method: Literal["spcl"] = "spcl"
    threshold: float | None = Field(
        0.5, gt=0.0, description="Difficulty up to which an utterance counts in the second epoch; null: all count."
    )
    growth: float = Field(1.3, ge=1.0, description="Factor of the threshold from epoch to epoch.")
    ratio: Ratio = "linear"


class PmrBalance(Config):
    """PMR: slow modalities are drawn to the prototypes of their classes, fast ones are held back at first."""

    method: Literal["pmr"] = "pmr"
    alpha: float = Field(0.6, ge=0.0, description="Weight of the prototypes' cross-entropy of slow modalities.")
    momentum: Fraction = Field(0.5, description="Share of the old prototypes that stays at the end of an epoch.")
    entropy: float = Field(0.01, ge=0.0, description="Weight of the prototypes' entropy of fast modalities.")
    entropy_epochs: int = Field(4, ge=0, description="Last epoch with the entropy, counted from 1.")
    ratio: Ratio = "linear"


class OpmBalance(Config):
    """OPM and modality dropout: modalities of single utterances are left out in training."""

    method: Literal["opm"] = "opm"
    rate: Fraction = Field(0.0, description="Probability with which each modality of an utterance is left out.")
    base: Fraction = Field(0.4, description="Additional probability for modalities ahead of the mean of the others.")
    alpha: float = Field(0.5, ge=0.0, le=1.0, description="How much of `base` is added for a large lead.")
    batches: float = Field(0.7, ge=0.0, le=1.0, description="Share of the batches in which `base` applies.")
    ratio: Ratio = "linear"


class UmtBalance(Config):
    """UMT: encoders are drawn to those of trained unimodal models, the run's teachers, one for each modality."""

    method: Literal["umt"] = "umt"
    weight: float = Field(1.0, ge=0.0, description="Weight of the squared distance from the teacher's encoder.")
    ratio: Ratio = "linear"


class OwnBalance(Config):
    """A balance method of the caller's own."""

    method: Annotated[str, _or_own()]
    options: Options = _options()
    ratio: Ratio = "linear"


_METHODS = (
    Ada2IBalance,
    NoBalance,
    OgmGeBalance,
    UnimodalBalance,
    TcMaxBalance,
    DglBalance,
    MmParetoBalance,
    AgmBalance,
    ArlBalance,
    SpclBalance,
    PmrBalance,
    OpmBalance,
    UmtBalance,
)
BALANCE_METHODS: Mapping[str, type[Config]] = {model.model_fields["method"].default: model for model in _METHODS}


def _method(given: object) -> str:
    """Return the tag of a balance config; configs stored before the field existed lack it and mean ``ada2i``."""
    method = str(given.get("method", "ada2i") if isinstance(given, dict) else getattr(given, "method", "ada2i"))
    return OWN if ":" in method else method


BalanceConfig = Annotated[
    Annotated[Ada2IBalance, Tag("ada2i")]
    | Annotated[NoBalance, Tag("none")]
    | Annotated[OgmGeBalance, Tag("ogm-ge")]
    | Annotated[UnimodalBalance, Tag("unimodal")]
    | Annotated[TcMaxBalance, Tag("tcmax")]
    | Annotated[DglBalance, Tag("dgl")]
    | Annotated[MmParetoBalance, Tag("mmpareto")]
    | Annotated[AgmBalance, Tag("agm")]
    | Annotated[ArlBalance, Tag("arl")]
    | Annotated[SpclBalance, Tag("spcl")]
    | Annotated[PmrBalance, Tag("pmr")]
    | Annotated[OpmBalance, Tag("opm")]
    | Annotated[UmtBalance, Tag("umt")]
    | Annotated[OwnBalance, Tag(OWN)],
    Discriminator(
        _method,
        custom_error_type="balance_method",
        custom_error_message=f"`method` must be one of {', '.join(BALANCE_METHODS)}, or {OWN}",
    ),
]


class TrainingConfig(Config):
    """Optimisation and selection."""

    learning_rate: float = Field(gt=0.0)
    weight_decay: float = Field(1e-8, ge=0.0)
    batch_dialogues: Positive = Field(description="Dialogues in one global batch, over all workers.")
    epochs: Positive
    clip_norm: float = Field(2.0, gt=0.0, description="L2 norm to which the gradient of all parameters is clipped.")
    selection: Literal["best", "last"] = Field(
        "best",
        description="Weights to keep: of the epoch with the best dev weighted F1 (or MAE), or of the end.",
    )
    early_stopping_epochs: Positive = Field(
        20, description="For selection `best`: stop after this many epochs without a better dev weighted F1."
    )
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="Learning rate: reduced when the dev loss stalls, or half a cosine with warm-up for 10 %.",
    )
    plateau_factor: float = Field(0.1, gt=0.0, lt=1.0, description="Learning-rate factor when the dev loss stalls.")
    plateau_epochs: int = Field(10, ge=0, description="Epochs without a lower dev loss before it is reduced.")
    shuffle_gib: float = Field(
        0.5, gt=0.0, description="Decoded features held and shuffled in memory; a larger split streams from disk."
    )
    seeds: tuple[int, ...] = Field((12,), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
            raise ValueError("Seeds must be different integers from 0 to 2**32 - 1, the most that torch takes")
        return seeds


class PlaceConfig(Config):
    """Which CPUs and GPUs of a cluster the processes of a job get."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda if the cluster has GPUs, or may grow to have some."
    )
    gpus_per_worker: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="Share of a GPU for each trial of a search or worker of an extraction; null: a whole GPU for each "
        "training worker and trial, equal shares for other workers.",
    )
    max_cpus: float | None = Field(
        None, gt=0.0, description="CPUs that an autoscaling cluster may grow to; null: it does not grow."
    )
    max_gpus: Positive | None = Field(
        None, description="GPUs that an autoscaling cluster may grow to; null: it does not grow."
    )
    wait_minutes: float = Field(
        15.0, ge=0.0, description="Longest wait for an autoscaling cluster to have the CPUs and GPUs."
    )


class ResourceConfig(PlaceConfig):
    """Where a run is trained; results change only by rounding and by the random numbers of dropout and noise."""

    workers: Positive | None = Field(
        None, description="Training processes; null: one for each GPU, or two without GPUs."
    )
    cpus_per_worker: float = Field(
        1.0, gt=0.0, description="CPUs per worker, also its threads (at least one); may be a fraction."
    )
    max_failures: int = Field(3, ge=0, description="Worker losses that one attempt survives.")
    accumulate: Positive = Field(
        1, description="Parts into which a worker's share of a batch is cut; their gradients are summed."
    )
    min_workers: Positive | None = Field(
        None, description="Fewest workers to continue with if the cluster has no room for more; null: `workers`."
    )
    checkpoint_minutes: float = Field(
        5.0,
        ge=0.0,
        description="Maximum training time that a kill may lose; epoch ends are saved if cheap. 0: every step.",
    )
    fast_cpu: bool = Field(
        True, description="Faster CPU code for dropout, noise, attention, Adam and memory; false: plain torch."
    )
    cuda_graphs: bool = Field(
        False,
        description="On one GPU, steps are captured once for each padded shape and replayed, if a first replay gives "
        "the same weights as the step itself.",
    )

    deterministic: bool = Field(
        True, description="On a GPU, the same run gives the same bits, also when resumed; false: faster kernels."
    )
    gpu_data_share: float = Field(
        0.2,
        ge=0.0,
        le=1.0,
        description="Share of a GPU's memory for train, and for dev: a split that fits stays there; 0: never.",
    )
    tf32: bool = Field(
        False, description="On a GPU, products of float32 matrices in TF32: several times as fast, 10 bits of mantissa."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.workers is not None and self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"`min_workers` must be at most `workers` = {self.workers}, but is {self.min_workers}")
        return self


REGRESSION_METHODS: Final = ("none", "unimodal")  # the balance methods whose equations need no classes


class TrainConfig(Config):
    """All settings of a training run, resolved."""

    schema_version: Literal[1] = 1
    task: Literal["classification", "regression"] = Field(
        "classification",
        exclude_if=lambda task: task == "classification",
        description="Predict the class `label`, or the number `target` with L1 losses.",
    )
    preset: str
    settings: str
    model: ModelConfig
    loss: LossConfig = LossConfig()
    balance: BalanceConfig
    training: TrainingConfig
    resources: ResourceConfig = ResourceConfig()
    ablations: AblationConfig = AblationConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resources.tf32 and self.preset == "reference":
            raise ValueError(
                "`resources.tf32` must be false for the preset reference, whose numbers are those of float32"
            )
        if self.balance.method == "tcmax" and self.model.prediction != "sum":
            raise ValueError("`balance.method=tcmax` needs `model.prediction=sum`: it recombines the votes of the sum")
        if self.model.fusion != "ada2i":
            if self.balance.method == "tcmax" or self.model.prediction != "sum":
                raise ValueError("`balance.method=tcmax` and `model.prediction=mlp` need `model.fusion=ada2i`")
            if self.ablations.no_afw or self.ablations.no_amw:
                raise ValueError("`ablations.no_afw` and `ablations.no_amw` need `model.fusion=ada2i`")
        return self

    @model_validator(mode="after")
    def _check_regression(self) -> Self:
        method = "none" if self.ablations.no_modulation else self.balance.method
        if self.task == "classification":
            return self
        if method not in REGRESSION_METHODS:
            raise ValueError(
                f"`task=regression` needs a `balance.method` that is defined without classes, "
                f"{' or '.join(REGRESSION_METHODS)}, but it is {method}. Set one, or use the preset `corrected`"
            )
        if self.loss.distillation:
            raise ValueError("`task=regression` needs `loss.distillation=0`: teachers teach probabilities")
        if self.loss.class_balance:
            raise ValueError("`task=regression` needs `loss.class_balance=0`: there are no classes to weigh")
        return self

    @property
    def regression(self) -> bool:
        """Whether the model predicts a number."""
        return self.task == "regression"

    @property
    def learns_encodings(self) -> bool:
        """Whether the encoders learn from those of unimodal teachers."""
        return isinstance(self.balance, UmtBalance) and bool(self.balance.weight) and not self.ablations.no_modulation

    @property
    def has_afw(self) -> bool:
        """Whether adaptive feature weighting is part of the network."""
        return self.model.fusion == "ada2i" and not self.ablations.no_afw

    @property
    def own_code(self) -> tuple[str, ...]:
        """The classes of the caller's own that the config names, each once."""
        method = "none" if self.ablations.no_modulation else self.balance.method
        return tuple(dict.fromkeys((*self.model.own_code, *([method] if ":" in method else []))))
