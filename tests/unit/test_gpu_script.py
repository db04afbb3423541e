"""The script that measures a GPU, tried on a CPU: whatever fails or hangs, it ends in time with a table."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import gpu
from tests.benchmarks.gpu import Options, Row

ROOT = Path(__file__).resolve().parents[2]
MEASURED = (
    "card",
    "ceiling",
    "golden_cases",
    "step_times",
    "launches",
    "determinism",
    "resume",
    "graph_step",
    "inference",
)


@pytest.mark.slow
def test_every_section_but_ray_runs_small_on_a_cpu(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu", "--small", "--minutes", "5"]
    command += ["--dialogues", "2", "--json", str(target), "--golden", str(tmp_path), "--sections", *MEASURED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=True)
    rows = {row["name"]: row["value"] for row in json.loads(target.read_text())}
    assert rows["golden_cases"].startswith("failed: FileNotFoundError at ")  # and the rest went on
    assert rows["two runs of 5 steps, reference, float32"] == "equal bits"
    assert rows["a resumed training"] == "equal bits"
    assert rows["step, meld, 2 dialogues, bfloat16"] > 0.0
    assert rows["graph step, 2 dialogues, float32: equal to the step itself"] == "yes"
    assert rows["inference, float32, 512 slots"] > 0.0
    assert [name for name, value in rows.items() if "failed" in str(value)] == ["golden_cases"]
    assert done.stdout.splitlines()[-1].startswith("section inference")


def test_a_section_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Options) -> Iterator[Row]:
        yield Row("before", 1.0)
        raise RuntimeError("out of memory\nand more")

    def whole(_: Options) -> Iterator[Row]:
        yield Row("whole", "fine")

    monkeypatch.setattr(gpu, "SECTIONS", (broken, whole))
    rows: list[Row] = []
    gpu.measure(Options("cpu", (2,), True, ROOT, 1, time.monotonic() + 60.0), rows)
    found = {row.name: row.value for row in rows}
    assert (found["before"], found["whole"]) == (1.0, "fine")
    assert str(found["broken"]).startswith("failed: RuntimeError at test_gpu_script.py:")
    assert str(found["broken"]).endswith(": out of memory")
    gpu.measure(Options("cpu", (2,), True, ROOT, 1, time.monotonic() - 1.0), rows)
    assert rows[-1] == Row("whole", "not run: out of time")


def test_a_section_that_hangs_does_not_keep_the_table(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tests.benchmarks import gpu\n"
        "def hung(options):\n    yield gpu.Row('before', 1.0)\n    time.sleep(60)\n"
        "gpu.SECTIONS, gpu._RESERVE_SECONDS = (hung,), 0.5\n"
        f"sys.argv = ['gpu', '--device', 'cpu', '--minutes', '0.02', '--json', {str(tmp_path / 'f.json')!r}]\n"
        "gpu.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 3
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["before", "the"]
    assert json.loads((tmp_path / "f.json").read_text())[-1]["value"] == "ended by its deadline: a section hung"
