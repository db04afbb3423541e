"""Every config model and its checks.

Models are frozen and refuse unknown fields. The defaults here are those of the `reference` preset where it has one
value for all datasets; what depends on the dataset has no default and comes from ``ada2i.presets``.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ada2i.modalities import Modality

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Config(BaseModel):
    """Base of all config models: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(Config):
    """One encoder per modality."""

    kind: Literal["transformer", "lstm", "context"] = Field(
        "transformer",
        description="Post-norm transformer (paper), LSTM, or a pre-norm one that starts as an average over neighbours.",
    )
    layers: Positive = 2
    feedforward_dim: Positive = Field(2048, description="Width inside a transformer layer.")
    dropout: Fraction = 0.5
    input_dropout: Fraction = Field(0.0, description="Of `context`: share of feature values dropped in training.")
    inertia: float = Field(0.0, ge=0.0, description="Of `context`: weight of the neighbours' average at the start.")
    attend_to_padding: bool = Field(
        True, description="Transformers see the zeros that pad a batch, as in the released code; false masks them."
    )
    positions: bool = Field(
        False, description="Sinusoids are added to the features; in `context`, attention knows distances."
    )
    speakers: bool = Field(
        False,
        description="A learned vector says who of the dialogue speaks; in `context`, attention knows the same speaker.",
    )
    causal: bool = Field(False, description="An utterance sees itself and what came before, in encoder and AFW.")


class AfwConfig(Config):
    """Adaptive feature weighting."""

    layers: Positive = 2
    rank: Positive
    beta: float = Field(ge=0.0, description="Share of the unweighted feature that passes.")
    dropout: Fraction = 0.5
    average_padding: bool = Field(
        True, description="Means and the mapping loss run over the padded time axis, as in the released code."
    )
    key_dim: Positive | None = Field(None, description="d_k: Theta is divided by its square root; null: no scale.")
    normalise: bool = Field(False, description="Layer norm before the maps q and k, and of the contracted tensor.")
    quiet_start: bool = Field(False, description="The gate starts near `beta`, and moves where the data ask for it.")
    order: Literal["listed", "cyclic"] = Field(
        "listed",
        description="Others are contracted in the modalities' order, or from the next one on, in a circle.",
    )
    target: Literal["weighted", "attention"] = Field(
        "weighted",
        description="What the mapping network learns: the weighted feature, as released, or the attention.",
    )


class AmwConfig(Config):
    """Adaptive modality weighting."""

    normalise: Literal["classes", "hidden"] = Field(
        "classes", description="Class weights are normalised over classes (released code), or over the width: cosines."
    )
    scale: float = Field(1.0, gt=0.0, description="Factor of each modality's vote.")
    learn_scale: bool = Field(False, description="The factor is learned, from `scale` on.")
    bias: bool = Field(True, description="The votes' sum gets a bias per class.")
    weights: Literal["equal", "held-out"] = Field(
        "equal", description="Votes weigh the same, or by what a probe of the modality gets on unseen train dialogues."
    )


class LossConfig(Config):
    """Weights of the loss terms; the feature loss is over slots where AFW averages padding, else over utterances."""

    classification: float = Field(1.0, ge=0.0, description="Cross-entropy of the prediction.")
    modal: float = Field(0.0, ge=0.0, description="Cross-entropy of the votes' sum, beside a prediction by an MLP.")
    feature: float = Field(1.0, ge=0.0, description="L1 distance of AFW's mapping network.")
    class_balance: float = Field(
        0.0, ge=0.0, le=1.0, description="Cross-entropies weigh a class by its share of train to minus this power."
    )


class AblationConfig(Config):
    """The paper's ablations; each switches one part off."""

    no_afw: bool = False
    no_amw: bool = False
    no_modulation: bool = Field(False, description="Neither modulation nor gradient noise.")


class ModelConfig(Config):
    """The network, but for what the features decide: widths and classes."""

    modalities: tuple[Modality, ...] = Field(
        ("text", "audio", "visual"), min_length=1, description="In this order: `reference` contracts in it."
    )
    hidden_dim: Positive
    encoder: EncoderConfig = EncoderConfig()
    afw: AfwConfig
    amw: AmwConfig = AmwConfig()
    prediction: Literal["sum", "mlp"] = Field("sum", description="The votes' sum, or an MLP with ReLU on it.")
    normalise: Literal["none", "train", "speaker"] = Field(
        "none",
        description="Features by mean and deviation of train; then also by those of the speaker in the dialogue.",
    )
    train_fitted: Literal["keep", "leave-out"] = Field(
        "keep", description="What becomes of modalities whose vectors were fitted to the labels of train."
    )
    mask_missing: bool = Field(False, description="A missing modality is neither attended to nor asked for its vote.")
    modality_dropout: Fraction = Field(0.0, description="Share of a dialogue's modalities hidden in training.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the encoders' matrix products; weights, their updates and all sums stay float32."
    )

    @field_validator("modalities")
    @classmethod
    def _check_modalities(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if len(set(modalities)) != len(modalities):
            raise ValueError("Modalities must differ from one another")
        return modalities

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder.kind == "lstm" and self.hidden_dim % 2:
            raise ValueError(f"`hidden_dim` must be even for LSTM encoders (two directions), but is {self.hidden_dim}")
        if self.encoder.causal and self.encoder.kind == "lstm":
            raise ValueError("`encoder.causal` needs another `encoder.kind` than lstm, which reads both directions")
        if self.encoder.kind == "lstm" and (self.encoder.positions or self.encoder.speakers):
            raise ValueError("`encoder.positions` and `.speakers` need another `encoder.kind` than lstm")
        if self.encoder.kind != "context" and (self.encoder.inertia or self.encoder.input_dropout):
            raise ValueError("`encoder.inertia` and `.input_dropout` must be 0 unless `encoder.kind=context`")
        if (self.encoder.causal or self.mask_missing) and (self.encoder.attend_to_padding or self.afw.average_padding):
            raise ValueError(
                "`encoder.causal` and `mask_missing` need `encoder.attend_to_padding` and `afw.average_padding` false"
            )
        if self.encoder.causal and self.normalise == "speaker":
            raise ValueError("`encoder.causal` needs `normalise` none or train: a speaker's statistics know the future")
        if self.encoder.kind == "context" and self.encoder.attend_to_padding:
            raise ValueError("`encoder.kind=context` needs `encoder.attend_to_padding` false: it never sees padding")
        if self.modality_dropout and not self.mask_missing:
            raise ValueError("`modality_dropout` needs `mask_missing` true")
        return self


class BalanceConfig(Config):
    """Disparity ratio, modulation and noise."""

    alpha: float = Field(ge=0.0, description="Strength of the modulation.")
    start_epoch: Positive = Field(4, description="First epoch, counted from 1, with modulation and noise.")
    ratio: Literal["linear", "votes"] = Field(
        "linear", description="The ratio's unimodal logits: un-normalised (released code), or AMW's votes."
    )
    acts_on: Literal["gradient", "update"] = Field(
        "gradient",
        description="Modulation and noise act on the gradient before Adam, as released, or on the update.",
    )
    noise: bool = Field(
        True, description="Gaussian noise on the encoders' gradients, by each gradient's own deviation."
    )


class TrainingConfig(Config):
    """Optimisation and selection."""

    learning_rate: float = Field(gt=0.0)
    weight_decay: float = Field(1e-8, ge=0.0)
    batch_dialogues: Positive = Field(description="Dialogues of one global batch, over all workers.")
    epochs: Positive
    clip_norm: float = Field(2.0, gt=0.0, description="L2 norm to which the gradient of all parameters is clipped.")
    early_stopping_epochs: Positive = Field(
        20, description="Stop after so many epochs without a better dev weighted F1."
    )
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau", description="Of the rate: lower when the dev loss stalls, or warm-up over a tenth and a half cosine."
    )
    plateau_factor: float = Field(0.1, gt=0.0, lt=1.0, description="Learning-rate factor when the dev loss stalls.")
    plateau_epochs: int = Field(10, ge=0, description="Epochs without a lower dev loss before that.")
    shuffle_gib: float = Field(
        0.5, gt=0.0, description="Decoded features that are shuffled together; a larger split streams through the disk."
    )
    seeds: tuple[int, ...] = Field((12,), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
            raise ValueError("Seeds must be different integers from 0 to 2**63 - 1")
        return seeds


class ResourceConfig(Config):
    """Where it runs; nothing here changes a result beyond rounding, but for dropout, drawn by rank and by part."""

    workers: Positive = 2
    cpus_per_worker: float = Field(1.0, gt=0.0, description="Also its threads, one at least; may be a fraction.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where the cluster has GPUs.")
    max_failures: int = Field(3, ge=0, description="Worker losses that one attempt survives.")
    accumulate: Positive = Field(
        1, description="Parts of a worker's share of a batch, one after the other, whose gradients are summed."
    )
    min_workers: Positive | None = Field(
        None, description="With how many a run may do while the cluster holds no more; null: with `workers` only."
    )
    checkpoint_minutes: float = Field(
        5.0,
        ge=0.0,
        description="What a kill may cost at most; epochs' ends are kept as often as costs little. 0: every step.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"`min_workers` must be at most `workers` = {self.workers}, but is {self.min_workers}")
        return self


class TrainConfig(Config):
    """Everything that decides a training run, resolved."""

    schema_version: Literal[1] = 1
    preset: str
    settings: str
    model: ModelConfig
    loss: LossConfig = LossConfig()
    balance: BalanceConfig
    training: TrainingConfig
    resources: ResourceConfig = ResourceConfig()
    ablations: AblationConfig = AblationConfig()
