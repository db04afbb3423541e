"""Import, extract, train, score and compare from Python, with the same use cases as the command line."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ada2i import storage, usecases
from ada2i.api.frames import Frame, as_location, is_frame
from ada2i.audit.measures import measures
from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError
from ada2i.extraction.request import ExtractSpec
from ada2i.importers import table
from ada2i.importers.demo import demo_table as demo
from ada2i.presets import flat, parse_modalities
from ada2i.records import Baseline, RunResult, Summary
from ada2i.registry.versions import register
from ada2i.store import Store
from ada2i.terminal import TerminalHooks
from ada2i.training.request import TrainSpec, new_run_id

if TYPE_CHECKING:
    from ada2i.evaluation.compare import Comparison

Source = Frame | str | os.PathLike[str]
Root = str | os.PathLike[str] | None

_FRAME = "frame"  # name of a frame's dataset unless the caller gives one


def demo_table() -> pa.Table:
    """Return the SYNTHETIC demo corpus as a table for import: 96 dialogues with splits, labels and vectors.

    Examples:
        >>> import ada2i
        >>> ada2i.demo_table().num_rows
        1061
    """
    return demo()


def import_table(source: Source, *, root: Root = None, dataset: str | None = None, **options: Any) -> str:
    """Import a table of utterances as a feature set, and return its URI; the same content is stored once.

    Args:
        source: A frame, or the path of a table; docs/features.md describes the columns.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``.
        dataset: Name of the set; by default the file's name, or ``frame``.
        options: See ``ada2i.importers.table.import_table``.

    Raises:
        DataError: A row, column or value is wrong. Nothing was written.

    Examples:
        >>> import ada2i
        >>> ada2i.import_table(ada2i.demo_table(), dataset="mine").rpartition("/")[0].rpartition("/")[2]
        'mine'
    """
    place = _store(root).writable().root
    if not is_frame(source):
        uri = table.import_table(os.fspath(source), place, dataset=dataset, **options)
    else:
        with as_location(source) as location:
            name = dataset or _FRAME
            uri = table.import_table(location, place, dataset=name, origin="a frame in memory", **options)
    measures(open_features(uri))
    return uri


def extract(
    kind: str,
    location: str | os.PathLike[str] = "",
    *,
    root: Root = None,
    encoders: Mapping[str, str | None] | None = None,
    config: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    local: bool = True,
    progress: bool = True,
) -> str:
    """Extract features of a raw corpus, and return the feature set's URI; what was encoded before is reused.

    Args:
        kind: The reader: ``folder``, ``iemocap``, ``meld``, ``mosei``, ``demo-media``, or ``package.module:function``.
        location: Path or URI of the corpus.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``.
        encoders: By modality: an encoder's name, ``none`` to leave the modality out, or None for the default.
        config: Fields such as ``{"media.frames_per_second": 2.0}``.
        dataset: Name of the set; by default the corpus's.
        local: Extract in this process; false: as a job on Ray.
        progress: Show progress on standard error.

    Raises:
        InputError: The corpus, an encoder or a field is wrong.
    """
    facts = {"kind": kind, "location": os.fspath(location), "encoders": dict(encoders or {}), "dataset": dataset}
    spec = ExtractSpec.model_validate(facts | {"overrides": flat(config or {}), "local": local})
    return usecases.extract(spec, _store(root), run_id=new_run_id(), hooks=_hooks(progress=progress)).features


def train(
    features: Source,
    config: Mapping[str, Any] | None = None,
    *,
    modalities: str | Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    local: bool = True,
    root: Root = None,
    dataset: str | None = None,
    preset: str = "corrected",
    settings: str | None = None,
    allow: Iterable[str] = (),
    teachers: Iterable[str] = (),
    run_id: str | None = None,
    progress: bool = True,
    **options: Any,
) -> "Run":
    """Train, select on dev, and evaluate once on test; ``Run.register`` then stores the model in the registry.

    Args:
        features: A frame; the path of a table; the URI of a feature set; ``demo``; or ``corpus:KIND:LOCATION``.
        config: Fields of the config, nested or dotted: ``{"training.epochs": 20}``; ``ada2i config`` lists them.
        modalities: Letters such as ``ta`` or names; by default all that the features hold.
        seeds: Seeds; by default those of the config.
        local: Train in this process, without Ray; false: as a job on Ray, which with one worker gives the same bits.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``.
        dataset: Name of the dataset; by default the features' own, or ``frame``.
        preset: The variant of Ada2I.
        settings: Published hyperparameters; by default the dataset's.
        allow: Codes of audit findings to ignore.
        teachers: Registered versions such as ``mine@1``, which teach the run (distillation).
        run_id: The run's id; that of an unfinished run resumes it. By default a new one.
        progress: Show progress on standard error.
        options: For a frame, those of ``import_table``, such as ``split_by``.

    Raises:
        InputError: Something is wrong; nothing was trained.
        DivergenceError: A loss or gradient was not finite.

    Examples:
        >>> import ada2i
        >>> run = ada2i.train("demo", {"training.epochs": 2}, modalities="ta", seeds=[1, 2], progress=False)
        >>> len(run.scores["weighted_f1"].values)
        2
        >>> run.register("doc-train")
        'doc-train@1'
    """
    spec = TrainSpec(
        features=_location(features, root, options, dataset),
        dataset=None if is_frame(features) else dataset,
        preset=preset,
        settings=settings,
        modalities=_letters(modalities),
        overrides=_overrides(config, seeds),
        allow=(allow,) if isinstance(allow, str) else tuple(allow),
        teachers=(teachers,) if isinstance(teachers, str) else tuple(teachers),
        local=local,
    )
    store = _store(root)
    return Run(usecases.train_run(spec, store, run_id=run_id or new_run_id(), hooks=_hooks(progress=progress)), store)


@dataclass(frozen=True, repr=False)
class Run:
    """A run that was trained and evaluated.

    Attributes:
        result: Everything about it: config, features, curves, scores, baselines and protocol.
        store: Where it is stored.
    """

    result: RunResult
    store: Store

    @property
    def scores(self) -> Mapping[str, Summary]:
        """Test scores over the seeds: mean, sample standard deviation and values, by score."""
        return self.result.test_summary

    @property
    def floor(self) -> Baseline | None:
        """The linear model that the run must exceed, with its score on the same test split."""
        return self.result.floor

    @cached_property
    def report(self) -> str:
        """Where the report is, a single HTML file: its path, or its URI on S3."""
        uri = storage.join(self.result.run_uri, "report.html")
        return str(storage.local_path(uri) or uri)

    def register(self, name: str | None = None) -> str:
        """Register the best seed on dev, and return the version as ``NAME@NUMBER``; the same run is registered once.

        Args:
            name: The model's name; by default ``ada2i-`` and the dataset.

        Raises:
            ConfigError: The name is not valid.
        """
        return register(self.result.run_uri, root=self.store.root, model=name).name

    def __repr__(self) -> str:
        score = self.scores["weighted_f1"]
        deviation = "" if score.sd is None else f" ± {score.sd:.4f} over {len(score.values)} seeds"
        floor = f", linear floor {self.floor.weighted_f1:.4f}" if self.floor else ""
        return f"Run({self.result.run_id}: test weighted F1 {score.mean:.4f}{deviation}{floor})"


def baseline(
    features: Source,
    *,
    modalities: str | Sequence[str] | None = None,
    root: Root = None,
    dataset: str | None = None,
    **options: Any,
) -> tuple[Baseline, ...]:
    """Score the majority class and linear models on test: the floor that a trained model must exceed.

    Args:
        features: As in ``train``, but no raw corpus.
        modalities: Letters such as ``ta``; by default all that the features hold.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``.
        dataset: For a frame, the name of the dataset.
        options: For a frame, those of ``import_table``.

    Raises:
        DataError: The features are invalid.

    Examples:
        >>> import ada2i
        >>> [row.name for row in ada2i.baseline("demo", modalities="t")]
        ['always neutral', 'linear on text']
    """
    letters = _letters(modalities)
    requested = parse_modalities(letters) if letters else ()
    return usecases.baseline(_location(features, root, options, dataset), _store(root), requested)


def compare(first: Source, second: Source, *, root: Root = None) -> "Comparison":
    """Test whether one of two versions, or of a version and predictions from elsewhere, is significantly better.

    Args:
        first: A version, such as ``calls@1``; or a frame or table of predictions for its test split, with
            ``dialogue_id``, ``utterance_index`` and ``p_<class>`` (or ``label``).
        second: The same; at least one of the two is a version.
        root: The storage root; by default ``ADA2I_ROOT``, else ``./ada2i-store``.

    Raises:
        NotFoundError: There is no such version.
        DataError: The two were tested on other dialogues.
    """
    with as_location(first) as one, as_location(second) as other:
        return usecases.compare(one, other, _store(root))


def _location(features: Source, root: Root, options: Mapping[str, Any], dataset: str | None) -> str:
    """Return the location of features; a frame is imported first.

    Raises:
        ConfigError: There are options for a frame, but no frame.
    """
    if is_frame(features):
        return import_table(features, root=root, dataset=dataset, **options)
    if options:
        raise ConfigError(
            f"`{min(options)}` is an option for frames, but the features are {os.fspath(features)!r}. Import the table "
            "first with `ada2i.import_table`, which takes this option, and name the feature set that it returns."
        )
    return os.fspath(features)


def _overrides(config: Mapping[str, Any] | None, seeds: Sequence[int] | None) -> dict[str, Any]:
    """Return the fields of a config and seeds by their dotted names.

    Raises:
        ConfigError: The config is no mapping, or the seeds are no list of whole numbers.
    """
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(
            f"`config` must be a mapping of fields, but is {config!r}. Write for example "
            '`{"training.epochs": 20}`; the variant of Ada2I is named by `preset`.',
            field="config",
        )
    if seeds is not None and (isinstance(seeds, str | int) or not all(isinstance(seed, Integral) for seed in seeds)):
        raise ConfigError(
            f"`seeds` must be a list of whole numbers, but is {seeds!r}. Write for example `seeds=[1, 2, 3]`.",
            field="seeds",
        )
    return flat(config or {}) | ({} if seeds is None else {"training.seeds": [int(seed) for seed in seeds]})


def _letters(modalities: str | Sequence[str] | None) -> str | None:
    return modalities if isinstance(modalities, str | None) else "".join(name[:1] for name in modalities)


def _store(root: Root) -> Store:
    return Store.open(None if root is None else os.fspath(root))


def _hooks(*, progress: bool) -> usecases.Hooks:
    return TerminalHooks("Call it again with this `run_id` to resume it.") if progress else usecases.Hooks()
