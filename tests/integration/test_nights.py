"""Nights of a retraining that is scheduled: nothing new, new dialogues, a worse challenger; and the way back."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import State

from ada2i import storage
from ada2i.registry.aliases import current, history, rollback
from ada2i.registry.verdicts import verdicts
from ada2i.registry.versions import find, versions
from infra.stack import Stack
from pipelines.promote import promote_ada2i
from pipelines.summary import KEY
from pipelines.train import train_ada2i
from tests.unit.promotion.versions import UNTRAINED, early, features

pytestmark = pytest.mark.integration

MODEL = "nights"
QUICK: dict[str, Any] = {"training.epochs": 6, "training.early_stopping_epochs": 6, "model.encoder.feedforward_dim": 32}
RULES = {
    "dialogues": 5,
    "utterances": 40,
    "margin": 0.1,
    "min_over_floor": -1,
    "class_drop": 1.0,
    "calibration_rise": 0.2,
}


@pytest.fixture(scope="module")
def home(stack: Stack, root: str) -> str:
    """A root with the champion that the nights begin with."""
    place = f"{root}-nights"
    state = night(place, features(place, early))
    assert state.name == "Promoted"
    return place


@pytest.fixture(scope="module")
def prefect(stack: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def night(home: str, uri: str, **more: Any) -> State[Any]:
    """Train as the schedule does."""
    overrides = QUICK | more.pop("overrides", {})
    options = {"seeds": [1], "model": MODEL, "root": home, "promote": True, "rules": RULES} | more
    state: State[Any] = train_ada2i(features=uri, overrides=overrides, **options, return_state=True)
    return state


def later(dialogue: int) -> str:
    """Return splits once ten more dialogues are there: five to train on, and the newest five to gate on."""
    return "gate" if dialogue >= 75 else "train" if dialogue >= 70 else early(dialogue)


def page_of(prefect: SyncPrefectClient, state: State[Any]) -> str:
    """Return the one page that a flow run left."""
    run = state.state_details.flow_run_id
    criteria = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]), flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    (found,) = prefect._client.post("/artifacts/filter", json={"artifacts": criteria.model_dump(mode="json")}).json()
    return str(found["data"])


def champion(home: str) -> int:
    found = current(home, MODEL, "champion")
    assert found is not None
    return found.number


@pytest.mark.smoke
def test_nothing_new_is_skipped(home: str, prefect: SyncPrefectClient) -> None:
    state = night(home, features(home, early))
    assert (state.type, state.name) == ("COMPLETED", "Skipped")
    assert (
        state.message
        == f"{MODEL}@1 has these features and this config. To train anyway, set `force` or omit `--skip-unchanged`."
    )
    assert state.result() == storage.join(home, "registry", MODEL, "versions", "1")
    page = page_of(prefect, state)
    assert page.startswith("# Skipped\n\nnights@1 has these features and this config")
    assert len(versions(home, MODEL)) == 1


def test_new_dialogues_are_trained_on_and_promoted(home: str, prefect: SyncPrefectClient) -> None:
    state = night(home, features(home, later), seeds=[1])
    version = find(home, MODEL)
    assert (state.name, version.number, champion(home)) == ("Promoted", 2, 2)
    run = str(state.state_details.flow_run_id)
    assert (version.flow_run_id, version.run_id) == (run, run)
    assert version.ray_job_id == f"{run}-0"
    page = page_of(prefect, state)
    expected = "# Promoted\n\nnights@2 is champion now, instead of version 1. On 5 gate dialogues: weighted F1 0."
    assert page.startswith(expected)
    for place in ("versions/2", "report.html", "`ada2i registry open nights@2`", version.features.uri):
        assert place in page
    links = re.findall(r"\]\((.*?)\)", page)
    assert len(links) == 2
    assert links[0].endswith(f"/runs/flow-run/{run}")
    assert links[1].endswith(f"/#/jobs/{run}-0")
    for link in links:  # as a browser requests it: what follows # stays in the browser
        assert httpx.get(link.partition("#")[0], headers={"Accept": "text/html"}).status_code == 200
    verdict = verdicts(home, MODEL)[-1]
    assert (verdict.judgement.split, verdict.judgement.champion) == ("gate", 1)
    assert history(home, MODEL, "champion")[-1].by == f"train-ada2i {run}"


def test_a_worse_challenger_is_refused(home: str, prefect: SyncPrefectClient) -> None:
    state = night(home, features(home, later), overrides=UNTRAINED)
    assert (state.name, find(home, MODEL).number, champion(home)) == ("Refused", 3, 2)
    page = page_of(prefect, state)
    assert page.startswith("# Refused\n\nnights@3 is refused as champion: weighted F1 is")
    again = night(home, features(home, later), overrides=UNTRAINED)
    assert again.name == "Skipped"  # refused once is refused


def test_a_refusal_can_be_overridden_with_a_reason(home: str) -> None:
    why = "the present one may no longer be used"
    state = promote_ada2i(f"{MODEL}@3", rules=RULES, override=why, root=home, return_state=True)
    assert (state.name, champion(home)) == ("Promoted", 3)
    assert str(state.message).startswith(f"{MODEL}@3 is champion: {why} (overrides verdict ")
    assert history(home, MODEL, "champion")[-1].reason.startswith(f"{why} (overrides verdict ")


def test_the_way_back(home: str) -> None:
    assert rollback(home, MODEL, "champion", by="anna", reason="worse on calls").number == 2
    assert rollback(home, MODEL, "champion", by="anna", reason="so is this").number == 1
    state = night(home, features(home, later), overrides=UNTRAINED)
    assert (state.name, champion(home)) == ("Skipped", 1)  # no night undoes a rollback
