"""The gate: which versions are compared on which dialogues, and how the alias moves."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ada2i import storage
from ada2i.data.manifest import FeatureSet, open_features
from ada2i.errors import ConfigError, ConflictError, DataError
from ada2i.importers import demo
from ada2i.inference.reading import can_read
from ada2i.inference.versions import load_config
from ada2i.modalities import MODALITIES
from ada2i.promotion import gate, predictions
from ada2i.promotion.gate import dry_run, is_settled, last_verdict, pass_gate, resolve_rules
from ada2i.promotion.page import headline, page
from ada2i.promotion.rules import GateRules
from ada2i.records import FeatureInfo, Recipe
from ada2i.registry.aliases import current, history, move, rollback
from ada2i.registry.verdicts import Judgement, record, verdicts
from ada2i.registry.verify import verify
from ada2i.registry.versions import Version, find, version_uri
from tests.unit.promotion.versions import UNTRAINED, early, features, trained

LENIENT = GateRules(
    dialogues=4, utterances=30, margin=1, min_over_floor=-1, class_drop=1, calibration_rise=1, resamples=500
)
WORSE = {name.replace(".", "__"): value for name, value in UNTRAINED.items()}


def later(dialogue: int) -> str:
    return "gate" if dialogue >= 70 else early(dialogue)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root with three versions: of 70 dialogues; with ten new ones as gate; and one that learned nothing."""
    root = tmp_path_factory.mktemp("promotion").as_uri()
    trained(root, "run-a", features(root, early))
    trained(root, "run-b", features(root, later), training__seeds=[6])
    trained(root, "run-c", features(root, later), **WORSE)
    return root


@pytest.fixture
def root(store: str, tmp_path: Path) -> str:
    """A copy of the store's registry, whose features stay where they are."""
    copy = (tmp_path / "store").as_uri()
    copy_folder(store, copy, "registry")
    return copy


def copy_folder(source: str, target: str, name: str) -> None:
    old, new = storage.local_path(storage.join(source, name)), storage.local_path(storage.join(target, name))
    assert old is not None
    assert new is not None
    shutil.copytree(old, new)


def version(root: str, number: int) -> Version:
    return find(root, "talks", number)


def crown(root: str, number: int) -> None:
    holder = current(root, "talks", "champion")
    before = holder.number if holder else None
    move(root, "talks", "champion", number, expected=before, by="anna", reason="to begin with")


def judged(root: str, number: int, rules: GateRules = LENIENT) -> Judgement:
    return dry_run(root, version(root, number), rules, by="anna")


def champion(root: str) -> int | None:
    found = current(root, "talks", "champion")
    return found.number if found else None


def passed(found: Judgement) -> dict[str, bool]:
    return {result.rule: result.passed for result in found.results}


def test_a_first_champion_needs_no_other(root: str) -> None:
    found = judged(root, 1)
    assert (found.decision, found.champion, found.split) == ("promote", None, "test")
    assert set(passed(found)) == {"dialogues", "utterances", "test-uses", "class-floor"}
    assert any("no champion" in note for note in found.notes)
    refused = judged(root, 1, GateRules(class_floor=0.9, class_utterances=10))
    assert refused.decision == "refuse"
    assert champion(root) is None


def test_the_gate_split_decides_where_there_is_one(root: str) -> None:
    crown(root, 1)
    found = judged(root, 2)
    assert (found.split, found.dialogues, found.test_uses) == ("gate", 10, None)
    assert found.decision == "promote"
    assert found.left_out == {}
    champions = {row.label: row.support for row in found.sides[1].scores.classes}
    assert champions == {row.label: row.support for row in found.sides[0].scores.classes}
    assert sum(champions.values()) == found.utterances


def test_a_worse_challenger_is_refused_and_stays_a_version(root: str) -> None:
    crown(root, 1)
    verdict = pass_gate(root, version(root, 3), GateRules(dialogues=5, utterances=40, min_over_floor=-1), by="anna")
    assert verdict.judgement.decision == "refuse"
    assert not passed(verdict.judgement)["weighted-f1"]
    assert champion(root) == 1
    assert verdicts(root, "talks") == [verdict]
    assert version(root, 3).number == 3
    assert "is refused as champion: weighted F1 is" in headline(verdict.judgement)


def test_a_passed_one_is_promoted_and_can_be_rolled_back(root: str) -> None:
    crown(root, 1)
    verdict = pass_gate(root, version(root, 2), LENIENT, by="anna")
    moved = history(root, "talks", "champion")[-1]
    assert (moved.number, moved.before, moved.by) == (2, 1, "anna")
    assert moved.reason.startswith("verdict 1, 10 gate dialogues: weighted F1 0.")
    assert pass_gate(root, version(root, 2), LENIENT, by="anna") == verdict  # nothing is judged twice
    assert len(history(root, "talks", "champion")) == 2
    assert rollback(root, "talks", "champion", by="ben", reason="worse on calls").number == 1
    assert is_settled(root, version(root, 2))


def test_an_override_is_recorded_with_what_it_overrides(root: str) -> None:
    crown(root, 1)
    strict = GateRules(dialogues=5, utterances=40, margin=0.0, min_over_floor=-1)
    verdict = pass_gate(root, version(root, 3), strict, by="anna", override="the old one has a licence problem")
    assert verdict.judgement.decision == "refuse"
    moved = history(root, "talks", "champion")[-1]
    assert moved.number == 3
    assert moved.reason.startswith("the old one has a licence problem (overrides verdict 1: weighted F1 is")


def test_dialogues_that_either_has_seen_are_left_out(root: str, store: str) -> None:
    # The champion was trained on five of the gate's dialogues.
    seen = features(store, lambda d: "train" if d >= 75 else early(d))
    trained(root, "run-d", seen, **WORSE)
    crown(root, 4)
    found = judged(root, 2)
    assert (found.split, found.dialogues) == ("gate", 5)
    assert found.left_out == {"version 4 was trained or selected on them": 5}


def test_a_dialogue_under_another_name_is_known_by_what_is_said(root: str, store: str) -> None:
    made = demo._table(np.random.RandomState(7), 80)["dialogue_id"].to_pylist()
    names = pa.array([f"new-{name}" for name in made])
    trained(root, "run-e", features(store, lambda d: "train" if d >= 74 else early(d), dialogue_id=names), **WORSE)
    crown(root, 4)
    found = judged(root, 2, LENIENT.model_copy(update={"dialogues": 4, "utterances": 1}))
    assert (found.split, found.dialogues) == ("gate", 4)
    assert found.left_out == {"version 4 was trained or selected on them": 6}


def test_ids_that_each_split_counts_anew_tell_nothing(root: str, store: str) -> None:
    # As in MELD: dialogue 0 of test is not dialogue 0 of train.
    made = demo._table(np.random.RandomState(7), 80)["dialogue_id"].to_pylist()
    numbers = [int(str(name).removeprefix("demo-")) for name in made]
    names = pa.array([str(number - 50 if number >= 50 else number) for number in numbers])
    found = judged(root, trained(root, "run-h", features(store, early, dialogue_id=names), **WORSE).number)
    assert (found.split, found.dialogues, found.left_out) == ("test", 20, {})


def test_where_the_gate_is_too_small_the_test_split_decides_and_is_counted(root: str) -> None:
    crown(root, 1)
    rules = LENIENT.model_copy(update={"dialogues": 11})
    first = judged(root, 2, rules)
    assert (first.split, first.dialogues, first.test_uses) == ("test", 20, 1)
    assert first.notes == ("The gate split decides nothing: 10 dialogues to judge by; at least 11 are needed.",)
    assert judged(root, 2, rules).test_uses == 1  # the same pair says nothing new
    assert judged(root, 3, rules).test_uses == 2
    used_up = judged(root, 3, rules.model_copy(update={"test_uses": 1}))
    assert not passed(used_up)["test-uses"]
    assert used_up.decision == "refuse"
    assert "pairs of versions that it has judged so far: 2" in page(used_up)


def test_too_little_is_refused(root: str) -> None:
    crown(root, 1)
    found = judged(root, 2, GateRules(dialogues=500))
    assert found.decision == "refuse"
    assert "20 dialogues to judge by; at least 500 are needed" in found.failures


def test_a_champion_whose_features_are_gone(root: str, store: str, tmp_path: Path) -> None:
    away = (tmp_path / "away").as_uri()
    uri = features(away, early)
    trained(root, "run-f", uri, **WORSE)
    folder = storage.local_path(uri)
    assert folder is not None
    shutil.rmtree(folder)
    crown(root, 4)
    found = judged(root, 2)
    assert (found.split, found.dialogues) == ("test", 20)  # whether it can read these is not known
    assert any("were deleted" in note and "favours it" in note for note in found.notes)


@pytest.mark.slow
def test_a_champion_of_other_encoders_is_compared_on_its_own_test(root: str, store: str) -> None:
    trained(root, "run-g", features(store, early, encoder="another"), **WORSE)
    crown(root, 4)
    found = judged(root, 2)
    assert (found.split, found.dialogues) == ("test", 20)
    assert found.test_uses == 1


@dataclass(frozen=True)
class Found(FeatureSet):
    """Features that say by which encoders they were extracted."""

    recipe: Recipe | None = None

    def info(self) -> FeatureInfo:
        """Return what a model must know of the set."""
        return super().info().model_copy(update={"recipe": self.recipe})


def test_features_that_are_gone_are_known_by_their_recipe(root: str, store: str) -> None:
    made = open_features(features(store, early))
    encoders = dict.fromkeys(MODALITIES, "of-the-encoder")
    champion, config = version(root, 1), load_config(version_uri(root, version(root, 1)), version(root, 1))
    assert can_read(champion, config, made)

    def readable(trained: Recipe | None, found: Recipe | None) -> bool:
        gone = champion.features.model_copy(update={"uri": f"{root}/gone", "recipe": trained})
        there = Found(uri=made.uri, manifest=made.manifest, recipe=found)
        return can_read(champion.model_copy(update={"features": gone}), config, there)

    recipe = Recipe(config={}, encoders=encoders)
    another = Recipe(config={}, encoders=encoders | {"text": "of-another"})
    assert readable(recipe, recipe)
    assert not readable(recipe, another)
    assert not readable(recipe, None)
    assert not readable(None, recipe)


def test_a_champion_whose_config_no_longer_loads_is_compared_on_its_own_test(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(root, 1)
    load = load_config

    def older(uri: str, found: Version) -> object:
        if found.number == 1:
            raise DataError("It must be a config of this version of ada2i, but is not. Predict with that one.")
        return load(uri, found)

    monkeypatch.setattr(predictions, "load_config", older)
    assert (judged(root, 2).split, judged(root, 2).dialogues) == ("test", 20)


def test_other_classes_cannot_be_compared(root: str) -> None:
    crown(root, 1)
    other = version(root, 2)
    strange = other.model_copy(update={"features": other.features.model_copy(update={"labels": ("a", "b")})})
    found = dry_run(root, strange, LENIENT, by="anna")
    assert (found.decision, found.dialogues, found.sides) == ("refuse", 0, ())
    assert "have the same classes, but talks@2 has a, b and talks@1 has neutral" in found.failures[0]
    assert "promote by hand" in page(found)


def test_the_champion_itself_is_not_judged(root: str) -> None:
    crown(root, 1)
    with pytest.raises(ConfigError, match="talks@1 is champion already"):
        judged(root, 1)


def test_who_was_overtaken_has_a_verdict_and_no_alias(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crown(root, 1)

    def meanwhile(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        crown(root, 3)
        return record(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gate, "record", meanwhile)
    with pytest.raises(ConflictError, match="must be at version 1 to be moved, but is at version 3"):
        pass_gate(root, version(root, 2), LENIENT, by="anna")
    assert champion(root) == 3
    assert last_verdict(root, version(root, 2)) is not None


def test_a_crash_before_the_move_is_caught_up(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crown(root, 1)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("killed")

    monkeypatch.setattr(gate, "move", die)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        pass_gate(root, version(root, 2), LENIENT, by="anna")
    monkeypatch.undo()
    assert champion(root) == 1
    assert not is_settled(root, version(root, 2))
    pass_gate(root, version(root, 2), LENIENT, by="anna")
    assert champion(root) == 2
    assert len(verdicts(root, "talks")) == 1


def test_verify_reads_verdicts(root: str) -> None:
    verdict = pass_gate(root, version(root, 1), LENIENT, by="anna")
    assert verify(root, "talks") == []
    place = storage.join(root, "registry", "talks", "verdicts", "1.json")
    storage.put(place, verdict.to_json().replace(b'"promote"', b'"refuse"'))
    assert [problem.uri for problem in verify(root, "talks")] == [place]
    storage.delete(place)
    second = record(root, verdict.judgement, by="anna")
    storage.put(storage.join(root, "registry", "talks", "verdicts", "3.json"), second.to_json())
    assert any("lacks 2.json" in problem.message for problem in verify(root, "talks"))


def test_rules_are_checked_all_at_once() -> None:
    assert resolve_rules({"margin": 0.1}).margin == 0.1
    with pytest.raises(
        ConfigError,
        match=r"(?s)`margin`: .*but found 3.*`morgin` is no rule. Did you mean margin.*Fields are dialogues, ",
    ):
        resolve_rules({"margin": 3, "morgin": 1})
