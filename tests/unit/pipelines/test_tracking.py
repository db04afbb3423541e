"""The nightly flow exports the model that it trained, or found unchanged, to the named trackers."""

from pathlib import Path
from typing import Any, cast

import pytest

from ada2i import usecases
from ada2i.store import Store
from ada2i.usecases import Outcome
from pipelines import train
from tests.unit.promotion.versions import early, features, trained


def test_each_tracker_gets_the_model_of_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(train, "FlowHooks", usecases.Hooks)
    monkeypatch.setattr(train, "export", lambda *given: calls.append(given))
    version = trained(tmp_path.as_uri(), "run", features(tmp_path.as_uri(), early), training__epochs=1)
    track = {"mlflow": "sqlite:///x.db", "wandb": "folder"}
    assert train._shown(Store.open(str(tmp_path)), Outcome(version), cast("Any", track)) == ""
    assert calls == [(tmp_path.as_uri(), kind, to, ["talks"]) for kind, to in track.items()]
    assert train._shown(Store.open(str(tmp_path)), Outcome(version), {}) == ""
    assert len(calls) == 2
