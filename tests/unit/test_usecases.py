"""The outcome of a run: by verdict and alias, which people can move against the verdict."""

from pathlib import Path

import pytest

from ada2i import storage, usecases
from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError
from ada2i.importers.demo import write_demo_corpus
from ada2i.registry.aliases import move, rollback
from ada2i.registry.verdicts import Judgement, Verdict, record
from ada2i.registry.versions import Version, check_same_kind
from ada2i.search.request import SearchSpec
from ada2i.store import Store
from ada2i.training.request import TrainSpec
from ada2i.usecases import Gate, Hooks, Outcome, _judged, promote
from tests.unit.cli.test_gating import judgement
from tests.unit.registry.finished import registered

GATE = Gate({}, by="a night")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open((tmp_path / "store").as_uri())


@pytest.fixture
def versions(store: Store) -> list[Version]:
    found = [registered(store.root, name, "ada2i") for name in ("run-a", "run-b")]
    move(store.root, "ada2i", "champion", 1, expected=None, by="anna", reason="first")
    return found


def recorded(store: Store, found: Judgement) -> Verdict:
    return record(store.root, found, by="a night")


def make_champion(store: Store, reason: str) -> None:
    move(store.root, "ada2i", "champion", 2, expected=1, by="anna", reason=reason)


def test_a_repeated_run_does_not_undo_a_rollback(store: Store, versions: list[Version]) -> None:
    verdict = recorded(store, judgement(2, passed=True, champion=1))
    make_champion(store, "verdict 1")
    rollback(store.root, "ada2i", "champion", by="anna", reason="worse")
    outcome = _judged(Outcome(versions[1], trained=True), store, GATE, Hooks())
    assert (outcome.verdict, outcome.held, outcome.what) == (verdict, None, "Registered")
    assert outcome.reason.endswith("The alias has been moved since, so the version does not have it now.")


def test_an_unchanged_version_that_was_judged_before_is_skipped(store: Store, versions: list[Version]) -> None:
    recorded(store, judgement(2, passed=False, champion=1))
    outcome = _judged(Outcome(versions[1], note="Nothing has changed."), store, GATE, Hooks())
    assert (outcome.what, outcome.reason) == ("Skipped", "Nothing has changed.")


def test_without_a_gate_the_version_is_only_registered(store: Store, versions: list[Version]) -> None:
    outcome = _judged(Outcome(versions[1], trained=True, note="Trained."), store, None, Hooks())
    assert (outcome.what, outcome.reason) == ("Registered", "Trained.")


def test_the_reason_of_an_override_comes_first(store: Store, versions: list[Version]) -> None:
    verdict = recorded(store, judgement(2, passed=False, champion=1))
    refused = Outcome(versions[1], trained=True, verdict=verdict)
    assert (refused.what, refused.reason[:18]) == ("Refused", "ada2i@2 is refused")
    make_champion(store, "licence (overrides verdict 1: too few)")
    outcome = promote("ada2i@2", store, gate=GATE, hooks=Hooks())
    assert (outcome.verdict, outcome.what) == (verdict, "Promoted")
    assert outcome.reason.startswith("ada2i@2 is champion: licence (overrides verdict 1: too few). ada2i@2")


def test_a_version_that_was_promoted_by_hand_is_not_judged(store: Store, versions: list[Version]) -> None:
    make_champion(store, "licence")
    outcome = promote("ada2i@2", store, gate=GATE, hooks=Hooks())
    assert (outcome.verdict, outcome.what) == (None, "Promoted")
    assert outcome.reason == "ada2i@2 is champion: licence. The gate did not judge it."


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"labels": ("x", "y")}, "classes "), ({"widths": {"text": 3}}, "widths "), ({}, "")],
)
def test_a_dataset_of_another_kind_under_a_models_name_must_be_named(
    store: Store, changed: dict[str, object], found: str
) -> None:
    known = registered(store.root, "run-a", None)
    features = known.features.model_copy(update=changed)
    if not changed:
        check_same_kind(store.root, features)
        return
    with pytest.raises(ConfigError, match=rf"classes and widths of {known.name}, but has others: {found}"):
        check_same_kind(store.root, features)


@pytest.mark.parametrize("what", ["train", "search"])
def test_a_dataset_whose_name_no_model_can_have_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store = Store.open(str(tmp_path))
    uri = write_demo_corpus(store.root, dialogues=20)
    manifest = open_features(uri).manifest.model_copy(update={"dataset": "d" * 60})
    storage.put(storage.join(uri, "manifest.json"), manifest.stored())
    monkeypatch.setattr(usecases, "launch", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(usecases, "_run_job", lambda *_: pytest.fail("trained"))
    spec = TrainSpec(features=uri)
    with pytest.raises(ConfigError, match="A model's name must be"):
        _start(what, spec, store)


def _start(what: str, spec: TrainSpec, store: Store) -> None:
    if what == "train":
        usecases.train(spec, store, run_id="run", hooks=Hooks(), force=True)
    else:
        usecases.search(SearchSpec(spec=spec), store, hooks=Hooks())
