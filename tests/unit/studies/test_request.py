"""A small study: what it trains, that it is trained once, and that the tables say what the runs say."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError, DataError, IntegrityError
from ada2i.importers.demo import write_demo_corpus
from ada2i.records import RunRequest, RunResult
from ada2i.store import Store
from ada2i.studies import outside
from ada2i.studies import request as studies
from ada2i.studies.job import Worker
from ada2i.studies.plot import study_plot
from ada2i.studies.progress import StudyProgress
from ada2i.studies.request import Prepared, StudyRequest, StudySpec, ablations, prepare_study, variations, write_study
from ada2i.studies.rows import Cell, Study, gather
from ada2i.studies.table import study_csv, study_markdown, write_tables
from tests.runs import run_uri
from tests.unit.data.tables import corpus, write
from tests.unit.training.small import TINY

SMALL = {name: value for name, value in TINY.items() if name != "training.seeds"} | {"training.epochs": 1}


def small_spec(root: Path, **more: object) -> StudySpec:
    features = write_demo_corpus(root.as_uri(), dialogues=26)
    return StudySpec.model_validate(
        {
            "dataset": "demo",
            "features": features,
            "presets": ("reference", "corrected"),
            "modalities": "ta,t",
            "seeds": (1, 2),
            "overrides": SMALL,
        }
        | more
    )


def train(root: Path, prepared: Prepared) -> None:
    """Do what the study's job does, here."""
    write_study(str(root), prepared.cells)
    for run in dict.fromkeys(cell.run_id for cell in prepared.cells if cell.run_id):
        uri = run_uri(root.as_uri(), run)
        for seed in RunRequest.load(storage.join(uri, "request.json")).config.training.seeds:
            assert Worker().train(uri, seed, False)[2] is None
        Worker().evaluate(uri)


def gathered(root: Path, prepared: Prepared, problems: dict[str, str] | None = None) -> Study:
    return gather(
        root=root.as_uri(),
        dataset="demo",
        settings=prepared.settings,
        features=prepared.features,
        cells=prepared.cells,
        problems=problems or {},
        protocol=prepared.protocol,
        outside=prepared.outside,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def prepared(root: Path) -> Prepared:
    """A study that is trained."""
    found = prepare_study(small_spec(root), root=str(root))
    train(root, found)
    return found


def result_of(root: Path, cell: Cell) -> RunResult:
    assert cell.run_id is not None
    return RunResult.load(storage.join(run_uri(root.as_uri(), cell.run_id), "result.json"))


def test_every_cell_is_an_ordinary_run(root: Path, prepared: Prepared) -> None:
    assert [(cell.preset, cell.letters) for cell in prepared.cells] == [
        ("reference", "ta"),
        ("reference", "t"),
        ("corrected", "ta"),
        ("corrected", "t"),
    ]
    for cell in prepared.cells:
        config = result_of(root, cell).config
        assert (config.preset, len(config.model.modalities)) == (cell.preset, len(cell.letters))
        assert config.training.seeds == (1, 2)
        assert config.resources.workers == 1


def test_the_same_command_finds_what_is_done(root: Path, prepared: Prepared) -> None:
    again = prepare_study(small_spec(root), root=str(root))
    assert again == prepared
    assert write_study(str(root), again.cells) is None


def test_only_new_runs_are_requested(root: Path, prepared: Prepared) -> None:
    more = prepare_study(small_spec(root, ablations="no_afw", modalities="ta"), root=str(root))
    job = write_study(str(root), more.cells)
    assert job is not None
    wanted = StudyRequest.load(storage.join(job.uri, "request.json")).runs
    new = [cell for cell in more.cells if cell.change]
    assert sorted(wanted) == sorted(run_uri(root.as_uri(), str(cell.run_id)) for cell in new)
    assert [row.problem for row in gathered(root, more).rows] == ["", "not finished", "", "not finished"]
    reported = gathered(root, more, {str(new[0].run_id): "seed 1: not finite"})
    assert [row.problem for row in reported.rows][1] == "seed 1: not finite"


def test_rows_say_what_the_runs_say(root: Path, prepared: Prepared) -> None:
    study = gathered(root, prepared)
    for row in study.rows:
        result = result_of(root, row.cell)
        scores = [test.scores.weighted_f1 for test in result.tests]
        assert row.measured is not None
        assert row.measured.weighted_f1.mean == pytest.approx(np.mean(scores))
        assert row.measured.weighted_f1.sd == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
        assert row.measured.interval.low < row.measured.weighted_f1.mean < row.measured.interval.high
        f1 = {
            c.label: np.mean([t.scores.classes[i].f1 for t in result.tests])
            for i, c in enumerate(result.tests[0].scores.classes)
        }
        assert row.measured.lowest_class_f1 == pytest.approx(min(f1.values()))
        shares = [np.mean(list(seed.history[-1].gate_share.values())) for seed in result.seeds]
        assert row.measured.gate_share == pytest.approx(np.mean(shares))
        assert row.published is None
    assert any("SYNTHETIC" in note for note in study.notes)
    assert "Nothing is published for made-up demo with 6 classes." in study.notes


def test_published_numbers_are_shown_with_the_others(root: Path, prepared: Prepared, tmp_path: Path) -> None:
    real = prepared.features.model_copy(update={"synthetic": False})
    study = gather(
        root=root.as_uri(), dataset="iemocap", settings="iemocap", features=real, cells=prepared.cells, problems={}
    )
    assert [row.published.weighted_f1 if row.published else None for row in study.rows] == [0.6691, None] * 2
    (note,) = (note for note in study.notes if note.startswith("Published: "))
    assert "text 32 wide (paper: 768), audio 24 wide (paper: 512)" in note
    assert "| 0.6691 | 0.6728 |" in study_markdown(study)
    write_tables(study, tmp_path)  # the plot's diamonds
    assert "0.6691" in (tmp_path / "table.csv").read_text()


def test_what_a_modality_adds(root: Path, prepared: Prepared) -> None:
    study = gathered(root, prepared)
    means = {(row.cell.preset, row.cell.letters): row.measured.weighted_f1.mean for row in study.rows if row.measured}
    text, audio = (each for each in study.contributions if each.preset == "corrected")
    assert (text.modality, text.alone, text.without, text.added) == ("text", means["corrected", "t"], None, None)
    assert (audio.modality, audio.alone) == ("audio", None)
    assert audio.added == pytest.approx(means["corrected", "ta"] - means["corrected", "t"])


def test_corrected_is_compared_with_reference(root: Path, prepared: Prepared) -> None:
    study = gathered(root, prepared)
    assert [(gain.first.name, gain.second.name) for gain in study.gains] == [
        ("reference T+A", "corrected T+A"),
        ("reference T", "corrected T"),
    ]
    for gain in study.gains:
        first, second = (result_of(root, cell).test_summary["weighted_f1"].values for cell in (gain.first, gain.second))
        assert gain.better == sum(b > a for a, b in zip(first, second, strict=True))
        assert gain.weighted_f1.interval.low <= gain.weighted_f1.difference <= gain.weighted_f1.interval.high
        assert gain.dialogues == 5


def test_tables_are_the_same_bytes_again(root: Path, prepared: Prepared, tmp_path: Path) -> None:
    study = gathered(root, prepared)
    for name in ("one", "two"):
        write_tables(study, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["plot.png", "table.csv", "table.json", "table.md"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert Study.model_validate_json((tmp_path / "one" / "table.json").read_bytes()) == study
    assert (tmp_path / "one" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert str(root) not in (tmp_path / "one" / "table.json").read_text()


def test_tables_show_a_row_that_failed(root: Path, prepared: Prepared) -> None:
    study = gathered(root, prepared)
    failed = study.rows[0].model_copy(update={"measured": None, "problem": "seed 1: not finite"})
    study = study.model_copy(update={"rows": (failed, *study.rows[1:])})
    lines = list(csv.DictReader(io.StringIO(study_csv(study))))
    assert [line["problem"] for line in lines] == ["seed 1: not finite", "", "", ""]
    assert lines[0]["weighted_f1_mean"] == ""
    assert float(lines[1]["weighted_f1_mean"]) == pytest.approx(study.rows[1].measured.weighted_f1.mean)  # type: ignore[union-attr]
    text = study_markdown(study)
    assert "| reference | T+A | seed 1: not finite |" in text
    assert f"{study.rows[1].measured.weighted_f1.mean:.4f} ±" in text  # type: ignore[union-attr]


def test_what_is_left_out_shares_the_run_of_the_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_fitted", lambda *_: ("audio",))
    found = prepare_study(small_spec(root, modalities="ta,t,a"), root=str(root))
    runs = {(cell.preset, cell.letters): cell for cell in found.cells}
    assert runs["corrected", "ta"].run_id == runs["corrected", "t"].run_id
    assert runs["corrected", "ta"].left_out == ("audio",)
    assert (runs["corrected", "a"].run_id, runs["corrected", "a"].left_out) == (None, ("audio",))
    assert runs["reference", "ta"].left_out == ()
    assert runs["reference", "ta"].run_id != runs["reference", "t"].run_id
    rows = {(row.cell.preset, row.cell.letters): row for row in gathered(root, found).rows}
    assert rows["corrected", "a"].problem == "no modality is left to train on"
    assert "T+A, audio left out: fitted to train labels" in study_markdown(gathered(root, found))


def test_all_modalities_are_those_held(root: Path) -> None:
    found = prepare_study(small_spec(root, presets=("reference",), modalities="all"), root=str(root))
    assert [cell.letters for cell in found.cells] == ["tav", "ta", "tv", "av", "t", "a", "v"]
    assert len({cell.run_id for cell in found.cells}) == 7


def test_a_diverging_seed_is_reported(tmp_path: Path) -> None:
    spec = small_spec(
        tmp_path,
        presets=("reference",),
        modalities="t",
        overrides=SMALL | {"training.learning_rate": 1e30, "training.epochs": 3},
    )
    (cell,) = prepare_study(spec, root=str(tmp_path)).cells
    failure = Worker().train(run_uri(tmp_path.as_uri(), str(cell.run_id)), 1, False)[2]
    assert failure is not None
    assert (failure.kind, "finite" in failure.message) == ("DivergenceError", True)


def test_progress_counts_seeds_and_shows_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [Cell(preset="paper", letters="ta", run_id="r"), Cell(preset="paper", letters="tav", run_id="r")]
    job = write_study(str(tmp_path), cells)
    assert job is not None
    with StudyProgress(job.uri) as progress:
        progress({"kind": "planned", "seeds": 2})
        progress({"kind": "trained", "run_id": "r", "seed": 1, "dev_weighted_f1": 0.5, "seconds": 3.0})
        progress({"kind": "diverged", "run_id": "r", "seed": 2, "message": "A loss must be finite."})
        progress("some line of the log")
    shown = capsys.readouterr().err
    assert "1/2  paper T+A, seed 1: dev wF1 0.5000 after 3 s" in shown
    assert "2/2  paper T+A, seed 2: A loss must be finite." in shown


def test_ablations_and_variations() -> None:
    assert ablations("none") == {}
    assert list(ablations("all")) == ["no_afw", "no_amw", "no_modulation"]
    assert ablations("no_amw") == {"no_amw": {"ablations.no_amw": True}}
    assert variations(["model.amw.scale=5,10", "balance.ratio=linear,votes"]) == {
        "model.amw.scale=5": {"model.amw.scale": 5},
        "model.amw.scale=10": {"model.amw.scale": 10},
        "balance.ratio=linear": {"balance.ratio": "linear"},
        "balance.ratio=votes": {"balance.ratio": "votes"},
    }
    assert variations(["model.encoder.speakers=true,false"])["model.encoder.speakers=false"] == {
        "model.encoder.speakers": False
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"presets": ("best",)}, "`preset` must be one of reference"),
        ({"modalities": "ta,x"}, "`--modalities` must be a combination of the letters"),
        ({"ablations": "no_head"}, "`--ablations` must be none, all, or some of no_afw"),
        ({"variations": ("model.amw.scale",)}, "`--vary` takes FIELD=V1,V2"),
        ({"variations": ("model.amw.scale=5,fast",)}, r"`model\.amw\.scale`"),
        ({"variations": ("training.epochs=5",)}, "`training.epochs` must be given once"),
        ({"overrides": {"training.seeds": [1]}}, "`training.seeds` must be given once"),
    ],
)
def test_mistakes_show_before_anything_is_written(tmp_path: Path, more: dict[str, object], message: str) -> None:
    spec = small_spec(tmp_path, **more)
    with pytest.raises(ConfigError, match=message):
        prepare_study(spec, root=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_modalities_that_the_features_lack(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", corpus())
    spec = small_spec(tmp_path, features=str(table), modalities="tav")
    with pytest.raises(DataError, match="has no"):
        prepare_study(spec, root=str(tmp_path / "other"))


def test_a_run_whose_request_was_replaced_is_not_trained(tmp_path: Path) -> None:
    (cell,) = prepare_study(small_spec(tmp_path, presets=("reference",), modalities="t"), root=str(tmp_path)).cells
    run = Store.open(str(tmp_path)).run(str(cell.run_id))
    request = run.request()
    for change in ({"run_id": "other"}, {"features": request.features.model_copy(update={"uri": "file:///elsewhere"})}):
        storage.put(run.request_uri, request.model_copy(update=change).stored())
        with pytest.raises(
            IntegrityError, match="must hold the config and features that the run's id was derived from"
        ):
            Worker().train(run.uri, 1, False)


# --- folds ---


@pytest.mark.slow
def test_folds_are_ordinary_runs_and_one_row(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, folds=2, modalities="t", presets=("reference", "corrected"))
    prepared = prepare_study(spec, root=str(tmp_path))
    assert [len(cell.folds) for cell in prepared.cells] == [2, 2]
    assert prepared.protocol == "2-fold by dialogue, mean over folds × seeds"  # noqa: RUF001
    job = write_study(str(tmp_path), prepared.cells)
    assert job is not None
    assert len(StudyRequest.load(storage.join(job.uri, "request.json")).runs) == 4
    assert gathered(tmp_path, prepared).rows[0].problem == "not finished"
    tested = set()
    for run in dict.fromkeys(run for cell in prepared.cells for run in cell.runs):
        uri = run_uri(tmp_path.as_uri(), run)
        for seed in (1, 2):
            assert Worker().train(uri, seed, False)[2] is None
        Worker().evaluate(uri)
        tested.add(RunResult.load(storage.join(uri, "result.json")).features.fingerprint)
    assert len(tested) == 2
    assert prepare_study(spec, root=str(tmp_path)) == prepared
    assert write_study(str(tmp_path), prepared.cells) is None
    study = gathered(tmp_path, prepared)
    results = [
        result_of(tmp_path, prepared.cells[0].model_copy(update={"run_id": run})) for run in prepared.cells[0].folds
    ]
    measured = study.rows[0].measured
    assert measured is not None
    values = [value for result in results for value in result.test_summary["weighted_f1"].values]
    assert measured.weighted_f1.values == tuple(values)
    assert measured.weighted_f1.mean == pytest.approx(np.mean(values))
    assert measured.seeds == (1, 2)
    assert study.gains[0].seeds == 4
    assert study.gains[0].dialogues == 26
    for baseline in study.baselines:
        name = {"majority class": "always "}.get(baseline.name, baseline.name)
        alike = [found.weighted_f1 for result in results for found in result.baselines if found.name.startswith(name)]
        assert len(alike) == 2
        assert baseline.weighted_f1 == pytest.approx(np.mean(alike))
    assert "majority class" in [baseline.name for baseline in study.baselines]
    text = study_markdown(study)
    assert text.startswith("# Ada2I on demo (SYNTHETIC), 2-fold by dialogue, mean over folds × seeds")  # noqa: RUF001
    captions = [line for line in text.splitlines() if line.startswith("## ") and "How to read" not in line]
    assert captions
    assert all(line.endswith("; 2-fold by dialogue, mean over folds × seeds") for line in captions)  # noqa: RUF001
    write_tables(study, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2, "leave_out": "speaker"}, "`--folds` and `--leave-out` must not be given together"),
        ({"folds": -1}, "`--folds` must be at least 2, but is -1"),
    ],
)
def test_folds_that_are_wrong(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_study(small_spec(tmp_path, **options), root=str(tmp_path))


def elsewhere(root: Path, folder: Path) -> Path:
    """Write predictions of another program for the study's test split: always its first class."""
    features = open_features(write_demo_corpus(root.as_uri(), dialogues=26))
    truth = outside.test_labels(features)
    same = pa.array([features.manifest.labels[0]] * truth.num_rows)
    pq.write_table(truth.drop_columns("label").append_column("label", same), folder / "theirs.parquet")
    return folder / "theirs.parquet"


def test_predictions_from_elsewhere_are_rows_with_paired_tests(root: Path, prepared: Prepared, tmp_path: Path) -> None:
    table = elsewhere(root, tmp_path)
    also = prepare_study(small_spec(root).model_copy(update={"also": (str(table),)}), root=str(root))
    assert also.cells == prepared.cells
    study = gathered(root, also)
    theirs = study.rows[-1]
    assert theirs.cell.name == "theirs.parquet"
    assert theirs.measured is not None
    floor = next(row for row in study.baselines if row.name.startswith("always"))
    assert theirs.measured.accuracy.mean == pytest.approx(floor.accuracy)  # the first class is the majority's
    assert theirs.measured.weighted_f1.sd is None
    gains = [gain for gain in study.gains if gain.first.name == "theirs.parquet"]
    assert [gain.second.name for gain in gains] == ["reference T+A", "corrected T+A"]
    for gain in gains:
        ours = next(row for row in study.rows if row.cell == gain.second).measured
        assert ours is not None
        assert gain.seeds == 2
        assert gain.p_adjusted is not None
    shown = study_markdown(study)
    assert "theirs.parquet" in shown
    assert "theirs.parquet" in study_csv(study)
    assert study_plot(study).startswith(b"\x89PNG")


def test_predictions_from_elsewhere_are_refused_before_any_run(root: Path, tmp_path: Path) -> None:
    table = elsewhere(root, tmp_path)
    spec = small_spec(root).model_copy(update={"seeds": (8, 9), "also": (str(table),)})
    with pytest.raises(ConfigError, match="folds make other test splits"):
        prepare_study(spec.model_copy(update={"folds": 3}), root=str(root))
    with pytest.raises(ConfigError, match=r"two are called theirs\.parquet"):
        prepare_study(spec.model_copy(update={"also": (str(table), str(table))}), root=str(root))
    pq.write_table(pq.read_table(table).slice(1), table)
    before = storage.children(storage.join(root.as_uri(), "runs"))
    with pytest.raises(DataError, match="lacks 1, first dialogue"):
        prepare_study(spec, root=str(root))
    assert storage.children(storage.join(root.as_uri(), "runs")) == before
