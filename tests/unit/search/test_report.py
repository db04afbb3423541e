"""What a search's tables and picture say, and that they are the same bytes again."""

import re

import pytest

from ada2i import presets
from ada2i.evaluation.metrics import summary
from ada2i.records import FeatureInfo
from ada2i.search.plot import search_plot
from ada2i.search.records import (
    Choice,
    Final,
    LogUniform,
    SearchOutcome,
    SearchResult,
    Space,
    TrialRecord,
    Uniform,
    Whole,
)
from ada2i.search.report import final_lines, search_files, search_markdown, terminal_search, trial_lines

SPACE = Space(
    fields={
        "training.learning_rate": LogUniform(low=1e-4, high=1e-2),
        "model.encoder.dropout": Uniform(low=0.0, high=0.5),
        "model.afw.dropout": Uniform(low=0.0, high=0.5),
        "training.batch_dialogues": Whole(low=4, high=8),
        "balance.ratio": Choice(values=("linear", "votes")),
    }
)


def trial(number: int, state: str, *curve: float, score: float | None = None, problem: str = "") -> TrialRecord:
    params = {
        "training.learning_rate": 1e-4 * (number + 1),
        "model.encoder.dropout": 0.1 * number,
        "model.afw.dropout": 0.05 * number,
        "training.batch_dialogues": 4 + number,
        "balance.ratio": "votes" if number % 2 else "linear",
    }
    score = max(curve, default=0.0) if score is None else score
    return TrialRecord.model_validate(
        {"number": number, "params": params, "state": state, "curve": curve, "score": score, "seconds": 2.0}
        | {"problem": problem}
    )


@pytest.fixture
def search() -> SearchResult:
    trials = (
        trial(0, "complete", 0.3, 0.4, 0.45),
        trial(1, "stopped", 0.2),
        trial(2, "complete", 0.4, 0.5, 0.55),
        trial(3, "diverged", score=0.0, problem="A loss must be finite, but is nan."),
    )
    finals = (
        Final(trial=0, run_id="s-0", params=trials[0].params, dev_weighted_f1=summary([0.44, 0.46])),
        Final(trial=2, run_id="s-2", params=trials[2].params, dev_weighted_f1=summary([0.50, 0.52])),
    )
    features = FeatureInfo(
        uri="file:///x", dataset="mine", fingerprint="0" * 32, synthetic=False, labels=("a", "b"), widths={"text": 4}
    )
    return SearchResult(
        search_id="search-1",
        features=features,
        config=presets.resolve(preset="corrected", settings="demo", overrides={}),
        space=SPACE,
        trials=trials,
        finals=finals,
        winner=2,
        run_id="s-2",
    )


def outcome(search: SearchResult) -> SearchOutcome:
    return SearchOutcome(search=search, version="mine@3", test_summary={"weighted_f1": summary([0.4, 0.5])})


def test_trials_are_ranked_those_that_went_to_the_end_first(search: SearchResult) -> None:
    lines = trial_lines(search)
    assert [line["trial"] for line in lines] == ["2", "0, as it was", "1", "3"]
    assert [line["score"] for line in lines] == ["0.5500", "0.4500", "0.2000", "0.0000"]
    assert lines[0]["encoder.dropout"] == "0.2"  # two fields end alike
    assert lines[0]["learning_rate"] == "0.0003"


def test_finals_show_the_winner(search: SearchResult) -> None:
    assert [(line["trial"], line["mean"], line[""]) for line in final_lines(search)] == [
        ("0, as it was", "0.4500", ""),
        ("2", "0.5100", "winner"),
    ]
    assert search.best.run_id == "s-2"


def test_a_final_that_failed_says_why(search: SearchResult) -> None:
    failed = search.finals[0].model_copy(update={"dev_weighted_f1": None, "problem": "seed 1: not finite"})
    lines = final_lines(search.model_copy(update={"finals": (failed, search.finals[1])}))
    assert (lines[0]["mean"], lines[0]["seeds"]) == ("seed 1: not finite", "-")


def test_markdown(search: SearchResult) -> None:
    text = search_markdown(outcome(search))
    assert "weighted F1 on test, by which nothing was chosen: 0.4500 ± 0.0707. Registered as mine@3." in text
    assert re.search(r"4 trials: 2 complete, 1 stopped, 1 diverged\.", text)
    assert "Trial 3: A loss must be finite, but is nan." in text
    assert "0.0001 to 0.01, by powers" in text
    assert "SYNTHETIC" not in text


def test_made_up_features_are_called_so(search: SearchResult) -> None:
    made_up = search.model_copy(update={"features": search.features.model_copy(update={"synthetic": True})})
    assert "SYNTHETIC" in search_markdown(outcome(made_up))
    assert "SYNTHETIC" in str(terminal_search(made_up)[0])


def test_files_are_the_same_bytes_again(search: SearchResult) -> None:
    files = search_files(outcome(search))
    assert sorted(files) == ["plot.png", "table.json", "table.md"]
    assert files == search_files(outcome(search))
    assert files["plot.png"].startswith(b"\x89PNG")
    assert SearchOutcome.model_validate_json(files["table.json"]) == outcome(search)


def test_a_search_of_one_trial_is_drawn(search: SearchResult) -> None:
    alone = search.model_copy(update={"trials": search.trials[:1], "finals": search.finals[:1], "winner": 0})
    assert search_plot(alone).startswith(b"\x89PNG")
