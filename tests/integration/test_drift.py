"""A night whose sound is louder starts a training, and the windows of the endpoint are watched."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ada2i import storage
from ada2i.drift import Window, keep, last_compared, reference_of
from ada2i.drift.reference import home
from ada2i.drift.windows import PAGE
from ada2i.registry.aliases import move
from ada2i.registry.versions import find
from infra.stack import Stack
from tests.integration.trainings import finished_training

pytestmark = pytest.mark.integration

HERE = Path(__file__).resolve().parents[2]


def test_a_louder_night_starts_a_training(stack: Stack, tmp_path: Path) -> None:
    import ada2i

    environment = {**os.environ, **stack.environment()}
    root = f"{environment['ADA2I_ROOT']}/louder"

    def call(*arguments: str) -> str:
        """Run a module; return its output."""
        ended = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=HERE, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    quick = ("--local", "--seeds", "1", "--set", "training.epochs=1", "--model", "louder")
    call("ada2i", "train", "demo", *quick, "--root", root)
    rows = ada2i.demo_table()
    louder = [None if row is None else (np.array(row) * 3).tolist() for row in rows["audio_feat"].to_pylist()]
    place = rows.schema.get_field_index("audio_feat")
    night = rows.set_column(place, "audio_feat", [louder]).cast(rows.schema)
    sink = tmp_path / "night.parquet"
    pq.write_table(night, sink)
    source = storage.join(root, "night.parquet")
    storage.put(source, sink.read_bytes())
    started = datetime.now(UTC)
    parameters = ("-p", "version=louder@1", "-p", f"source={source}", "-p", f"root={root}")
    call("prefect", "deployment", "run", "predict-emotions", "--watch", *parameters)
    run = finished_training(started)
    assert run.state_type == "COMPLETED", run.state
    version = find(root, "louder", 1)
    assert b"of the last window above the limit" in storage.get(storage.join(home(root, version), PAGE))
    move(root, "louder", "champion", 1, expected=None, by="test", reason="test")
    dev = reference_of(root, version).dev
    live = Window.of_endpoint("louder", 1, len(dev), dev.sum(axis=0))
    keep(root, live)
    call("prefect", "deployment", "run", "watch-drift", "--watch", "-p", f"root={root}")
    assert last_compared(root, version) == live.run_id
    storage.delete(storage.join(home(root, version), "windows", f"{live.run_id}.json"))
    (window,) = json.loads(call("ada2i", "drift", "louder@1", "--json", "--root", root))
    above = [one["name"] for one in window["statistics"] if one["value"] > one["limit"]]
    assert any(".audio." in name for name in above), above
