"""A study of regression: its tables show the scores of numbers, also over folds."""

from pathlib import Path

import pytest

from ada2i.studies.job import Worker
from ada2i.studies.request import StudySpec, prepare_study, write_study
from ada2i.studies.table import baseline_lines, score_lines, study_csv, study_markdown
from tests.runs import run_uri
from tests.unit.regression.talks import numbers
from tests.unit.studies.test_request import SMALL, gathered

QUICK = {name: value for name, value in SMALL.items() if not name.startswith("balance.")}


@pytest.mark.parametrize("folds", [0, 2])
def test_tables_show_scores_of_numbers(tmp_path: Path, folds: int) -> None:
    numbers(dialogues=30).to_parquet(tmp_path / "talks.parquet", index=False)
    spec = StudySpec(
        dataset="demo",
        features=str(tmp_path / "talks.parquet"),
        presets=("corrected",),
        modalities="ta",
        seeds=(1, 2),
        overrides={**QUICK, "task": "regression"},
        folds=folds,
    )
    prepared = prepare_study(spec, root=tmp_path.as_uri())
    assert write_study(str(tmp_path), prepared.cells) is not None
    for run in {run for cell in prepared.cells for run in cell.runs}:
        for seed in spec.seeds:
            assert Worker().train(run_uri(tmp_path.as_uri(), run), seed, False)[2] is None
        Worker().evaluate(run_uri(tmp_path.as_uri(), run))
    study = gathered(tmp_path, prepared)
    (line,) = score_lines(study)
    measured = study.rows[0].measured
    assert measured is not None
    assert str(line["MAE"]).startswith(f"{measured.regression['mae'].mean:.4f} ± ")
    assert line["Acc-3"] == "-"
    assert len(measured.regression["mae"].values) == 2 * max(1, folds)
    always, *linear = baseline_lines(study)
    assert always["baseline"] == "always the mean of train"
    assert all(0 < float(row["MAE"]) < float(always["MAE"]) * 1.1 for row in linear)
    for text in (study_markdown(study), study_csv(study)):
        assert ("MAE" if "#" in text else "mae_mean") in text
    assert "Acc-3" not in study_markdown(study)
