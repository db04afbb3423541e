"""The public surface, spelled out: growing it is a visible diff here."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ada2i.cli import app
from ada2i.config import TrainConfig
from ada2i.extraction.config import ExtractionConfig
from ada2i.presets import PRESETS, SETTINGS, field_names
from ada2i.promotion.rules import GateRules
from ada2i.search.request import SearchOptions
from ada2i.serving.limits import Limits
from pipelines.drift import watch_drift
from pipelines.extract import extract_features
from pipelines.jobs import reap_ada2i_jobs
from pipelines.predict import predict_emotions
from pipelines.promote import promote_ada2i
from pipelines.train import train_ada2i
from pipelines.tune import tune_ada2i

FIELDS = [
    "ablations.no_afw",
    "ablations.no_amw",
    "ablations.no_modulation",
    "balance.acts_on",
    "balance.alpha",
    "balance.base",
    "balance.batches",
    "balance.entropy",
    "balance.entropy_epochs",
    "balance.growth",
    "balance.joint",
    "balance.largest",
    "balance.method",
    "balance.momentum",
    "balance.noise",
    "balance.options",
    "balance.rate",
    "balance.ratio",
    "balance.start_epoch",
    "balance.strength",
    "balance.temperature",
    "balance.threshold",
    "balance.weight",
    "loss.class_balance",
    "loss.classification",
    "loss.distillation",
    "loss.distillation_temperature",
    "loss.feature",
    "loss.modal",
    "model.afw.average_padding",
    "model.afw.beta",
    "model.afw.dropout",
    "model.afw.key_dim",
    "model.afw.layers",
    "model.afw.normalise",
    "model.afw.order",
    "model.afw.quiet_start",
    "model.afw.rank",
    "model.afw.target",
    "model.amw.bias",
    "model.amw.normalise",
    "model.amw.scale",
    "model.amw.weights",
    "model.encoder.attend_to_padding",
    "model.encoder.causal",
    "model.encoder.decays",
    "model.encoder.dialogue_decay",
    "model.encoder.dropout",
    "model.encoder.feedforward_dim",
    "model.encoder.inertia",
    "model.encoder.input_dropout",
    "model.encoder.kind",
    "model.encoder.layers",
    "model.encoder.options",
    "model.encoder.positions",
    "model.encoder.speakers",
    "model.fusion",
    "model.fusion_options",
    "model.hidden_dim",
    "model.mask_missing",
    "model.modalities",
    "model.normalise",
    "model.precision",
    "model.prediction",
    "model.train_fitted",
    "preset",
    "resources.accumulate",
    "resources.checkpoint_minutes",
    "resources.cpus_per_worker",
    "resources.cuda_graphs",
    "resources.deterministic",
    "resources.device",
    "resources.fast_cpu",
    "resources.gpu_data_share",
    "resources.gpus_per_worker",
    "resources.max_cpus",
    "resources.max_failures",
    "resources.max_gpus",
    "resources.min_workers",
    "resources.tf32",
    "resources.wait_minutes",
    "resources.workers",
    "schema_version",
    "settings",
    "task",
    "training.batch_dialogues",
    "training.clip_norm",
    "training.early_stopping_epochs",
    "training.epochs",
    "training.learning_rate",
    "training.plateau_epochs",
    "training.plateau_factor",
    "training.schedule",
    "training.seeds",
    "training.selection",
    "training.shuffle_gib",
    "training.weight_decay",
]

COMMANDS = {
    "audit": ["--allow", "--html", "--json", "FEATURES"],
    "baseline": ["--json", "--modalities", "--root", "FEATURES"],
    "compare": ["--json", "--root", "FIRST", "SECOND"],
    "config": ["--preset", "--set", "--settings"],
    "demo-corpus": ["--root"],
    "distil": [
        "--allow",
        "--features",
        "--json",
        "--local",
        "--modalities",
        "--model",
        "--root",
        "--run",
        "--seeds",
        "--set",
        "--settings",
        "--student",
        "--temperature",
        "--weight",
        "TEACHERS",
    ],
    "doctor": ["--json", "--root"],
    "encoders": ["--json"],
    "extract": [
        "--audio",
        "--dataset",
        "--json",
        "--local",
        "--root",
        "--run",
        "--set",
        "--text",
        "--visual",
        "--workers",
        "KIND",
        "LOCATION",
    ],
    "import join": ["--audio", "--root", "--text", "--visual", "BASE"],
    "import meld": ["--features", "--root", "FOLDER"],
    "import pickle": ["--dataset", "--layout", "--root", "SOURCE"],
    "import table": [
        "--dataset",
        "--gate-share",
        "--labels",
        "--pack",
        "--rename",
        "--root",
        "--shares",
        "--split-by",
        "SOURCE",
    ],
    "drift": ["--code", "--json", "--open", "--root", "VERSION"],
    "predict": [
        "--allow-encoder",
        "--code",
        "--json",
        "--local",
        "--min-confidence",
        "--out",
        "--root",
        "--split",
        "--workers",
        "SOURCE",
        "VERSION",
    ],
    "serve": [
        "--allow-encoder",
        "--code",
        "--drift-window",
        "--host",
        "--limit",
        "--min-confidence",
        "--port",
        "--replicas",
        "--root",
        "VERSION",
    ],
    "registry diff": ["--json", "--root", "FIRST", "SECOND"],
    "registry gate": ["--again", "--alias", "--by", "--code", "--json", "--promote", "--root", "--set", "REFERENCE"],
    "registry gc": ["--json", "--older-than", "--root", "--versions-older-than", "MODEL"],
    "registry history": ["--alias", "--json", "--root", "MODEL"],
    "registry list": ["--json", "--root", "MODEL"],
    "registry promote": ["--alias", "--by", "--expected", "--json", "--reason", "--root", "REFERENCE"],
    "registry pull": ["--root", "FOLDER", "REFERENCE"],
    "registry rollback": ["--alias", "--by", "--expected", "--json", "--reason", "--root", "MODEL"],
    "registry open": ["--root", "--to", "REFERENCE"],
    "registry show": ["--all", "--json", "--root", "REFERENCE"],
    "registry verdicts": ["--json", "--page", "--root", "MODEL"],
    "registry verify": ["--json", "--root", "REFERENCE"],
    "reproduce": [
        "--ablations",
        "--allow",
        "--also",
        "--folds",
        "--json",
        "--leave-out",
        "--missing",
        "--modalities",
        "--out",
        "--presets",
        "--root",
        "--seeds",
        "--set",
        "--vary",
        "DATASET",
        "FEATURES",
    ],
    "track mlflow": ["--root", "--to", "MODELS"],
    "track wandb": ["--root", "--to", "MODELS"],
    "train": [
        "--allow",
        "--code",
        "--dataset",
        "--encoder",
        "--json",
        "--local",
        "--modalities",
        "--model",
        "--no-afw",
        "--no-amw",
        "--no-modulation",
        "--preset",
        "--promote",
        "--resume",
        "--root",
        "--rule",
        "--run",
        "--seeds",
        "--set",
        "--settings",
        "--skip-unchanged",
        "--workers",
        "FEATURES",
    ],
    "tune": [
        "--allow",
        "--concurrent",
        "--epochs",
        "--finalists",
        "--grace",
        "--json",
        "--modalities",
        "--model",
        "--out",
        "--preset",
        "--reduction",
        "--root",
        "--search-seed",
        "--seeds",
        "--set",
        "--settings",
        "--space",
        "--trial-seeds",
        "--trials",
        "--vary",
        "--workers",
        "FEATURES",
    ],
}

FLOW: dict[str, Any] = {
    "features": None,
    "preset": "corrected",
    "settings": None,
    "encoders": {},
    "modalities": None,
    "workers": None,
    "seeds": None,
    "overrides": {},
    "model": None,
    "root": None,
    "allow": [],
    "teachers": [],
    "promote": False,
    "rules": {},
    "force": False,
    "code": [],
    "track": {},
}

PROMOTION_FLOW: dict[str, Any] = {
    "version": inspect.Parameter.empty,
    "rules": {},
    "override": None,
    "alias": "champion",
    "again": False,
    "root": None,
    "code": [],
}

RULES = [
    "calibration_rise",
    "class_drop",
    "class_floor",
    "class_utterances",
    "confidence",
    "dialogues",
    "margin",
    "min_over_floor",
    "resamples",
    "seed",
    "test_uses",
    "utterances",
]

TUNING_FLOW: dict[str, Any] = {
    "features": None,
    "preset": "corrected",
    "settings": None,
    "modalities": None,
    "space": {},
    "vary": [],
    "options": SearchOptions(),
    "epochs": None,
    "seeds": [1, 2, 3],
    "workers": 1,
    "overrides": {},
    "model": None,
    "root": None,
    "allow": [],
}

SEARCH_OPTIONS = ["concurrent", "finalists", "grace", "reduction", "seed", "trial_seeds", "trials"]

LIMITS = [
    "body_bytes",
    "clip_bytes",
    "clip_memory",
    "clip_seconds",
    "requests",
    "seconds",
    "session_bytes",
    "session_seconds",
    "session_turns",
    "sessions",
    "text_chars",
    "turns",
]

EXTRACTION_FIELDS = [
    "chunk.audio",
    "chunk.text",
    "chunk.visual",
    "device",
    "encoders",
    "gate_share",
    "gpus_per_worker",
    "max_cpus",
    "max_gpus",
    "media.frames_per_second",
    "media.limit_s",
    "media.max_frames",
    "media.max_side",
    "media.revision",
    "policy.named",
    "policy.unreadable",
    "schema_version",
    "wait_minutes",
    "workers",
]

PREDICTION_FLOW: dict[str, Any] = {
    "version": inspect.Parameter.empty,
    "source": inspect.Parameter.empty,
    "split": "all",
    "out": None,
    "workers": None,
    "root": None,
    "allow_encoders": [],
    "code": [],
    "min_confidence": 0.0,
    "drift": True,
}

EXTRACTION_FLOW: dict[str, Any] = {
    "corpus": "demo-media",
    "dataset": None,
    "location": "",
    "text": None,
    "audio": None,
    "visual": None,
    "workers": None,
    "overrides": {},
    "root": None,
}


def commands(command: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield every leaf command with its options and arguments."""
    if children := getattr(command, "commands", None):
        for child, inner in children.items():
            yield from commands(inner, f"{name} {child}".strip())
        return
    parameters: list[str] = []
    for parameter in command.params:
        named = parameter.param_type_name == "option"
        parameters += [*parameter.opts, *parameter.secondary_opts] if named else [parameter.name.upper()]
    yield name, sorted(parameters)


def test_config_fields() -> None:
    assert sorted(field_names(TrainConfig)) == FIELDS


def test_presets_and_settings() -> None:
    assert sorted(PRESETS) == ["causal", "corrected", "paper", "reference"]
    assert sorted(SETTINGS) == ["default", "demo", "iemocap", "meld", "mosei", "mosi"]


def test_commands() -> None:
    assert dict(commands(typer.main.get_command(app))) == COMMANDS


def test_extraction_config_fields() -> None:
    assert sorted(field_names(ExtractionConfig)) == EXTRACTION_FIELDS


def test_rules_of_the_gate() -> None:
    assert sorted(field_names(GateRules)) == RULES


def test_limits_of_the_endpoint() -> None:
    assert sorted(Limits.model_fields) == LIMITS


def test_search_options() -> None:
    assert sorted(field_names(SearchOptions)) == SEARCH_OPTIONS


@pytest.mark.parametrize(
    ("flow", "name", "expected"),
    [
        (train_ada2i, "train-ada2i", FLOW),
        (extract_features, "extract-features", EXTRACTION_FLOW),
        (tune_ada2i, "tune-ada2i", TUNING_FLOW),
        (predict_emotions, "predict-emotions", PREDICTION_FLOW),
        (promote_ada2i, "promote-ada2i", PROMOTION_FLOW),
        (watch_drift, "watch-drift", {"root": None, "code": []}),
        (reap_ada2i_jobs, "reap-ada2i-jobs", {}),
    ],
)
def test_flows(flow: Any, name: str, expected: dict[str, Any]) -> None:
    parameters = inspect.signature(flow.fn).parameters
    assert flow.name == name
    assert {name: parameter.default for name, parameter in parameters.items()} == expected
