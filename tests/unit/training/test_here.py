"""Training, extraction and prediction in the caller's own process."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ada2i import storage, usecases
from ada2i.errors import ConfigError, PreemptedError
from ada2i.jobs.events import Event
from ada2i.store import Store
from ada2i.training.request import TrainSpec
from tests.unit.extraction.talks import OWN, talk

QUICK: dict[str, Any] = {"training.epochs": 3, "training.seeds": [1]}


class Listening(usecases.Hooks):
    """Collects the events of jobs."""

    def __init__(self, on_event: Any) -> None:
        self.on_event = on_event

    def job(self, kind: usecases.JobKind, uri: str, address: str) -> Any:
        from contextlib import nullcontext

        assert address == ""
        return nullcontext(self.on_event)


def test_a_local_run_reports_its_start_and_each_epoch(tmp_path: Path) -> None:
    events: list[Event] = []
    torch.set_num_threads(2)
    spec = TrainSpec(features="demo", overrides=QUICK, local=True)
    result = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=Listening(events.append))
    assert [event["kind"] for event in events] == ["started", "first_step", "epoch", "epoch", "epoch"]
    assert (events[0]["workers"], events[0]["device"]) == (1, "cpu")
    machine = json.loads(storage.get(Store.open(str(tmp_path)).run("r").environment_uri))
    assert machine["placement"] == {"workers": 1, "device": "cpu", "reason": events[0]["reason"]}
    assert machine["cpus"] == os.cpu_count()
    assert "torch" in machine["packages"]
    assert result.config.resources.workers == 1
    assert torch.get_num_threads() == 2  # as the caller had it
    again = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=Listening(pytest.fail))
    assert again.test_summary == result.test_summary


def test_sigterm_lets_a_local_run_write_a_checkpoint_and_leave(tmp_path: Path) -> None:
    assert threading.current_thread() is threading.main_thread()

    def stop(event: Event) -> None:
        if event["kind"] == "epoch" and event["record"]["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    spec = TrainSpec(features="demo", overrides=QUICK, local=True)
    with pytest.raises(PreemptedError):
        usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=Listening(stop))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())
    whole = usecases.train_run(spec, Store.open(str(tmp_path)), run_id="whole", hooks=usecases.Hooks())
    assert resumed.test_summary == whole.test_summary


def test_a_local_run_has_one_worker(tmp_path: Path) -> None:
    spec = TrainSpec(features="demo", overrides={"resources.workers": 2}, local=True)
    with pytest.raises(ConfigError, match=r"`resources\.workers` must be 1, but is 2"):
        usecases.train_run(spec, Store.open(str(tmp_path)), run_id="r", hooks=usecases.Hooks())


@pytest.mark.slow
def test_recordings_are_extracted_and_trained_on_in_this_process(tmp_path: Path) -> None:
    talk(tmp_path / "talks", 30)
    spec = TrainSpec(
        features=f"corpus:folder:{tmp_path / 'talks'}",
        encoders=OWN,
        overrides=QUICK,
        allow=("cross-split-copies",),
        local=True,
    )
    events: list[Event] = []
    usecases.train_run(spec, Store.open(str(tmp_path / "store")), run_id="r", hooks=Listening(events.append))
    kinds = [event["kind"] for event in events]
    assert kinds.index("planned") < kinds.index("epoch")
