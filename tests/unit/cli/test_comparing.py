"""Comparing versions, however they are named."""

import json
from pathlib import Path

from ada2i import storage
from ada2i.registry.aliases import move
from ada2i.registry.versions import register, version_uri
from tests.runs import seed_uri
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.evaluation.predictions import predictions
from tests.unit.registry.finished import finished_run


def registered(root: Path, run_id: str, data: bytes, *, synthetic: bool = False) -> Path:
    """Register a run with these predictions as a version of ``m``; return its folder."""
    result = finished_run(root.as_uri(), run_id, seeds=(12,), synthetic=synthetic)
    storage.put(storage.join(seed_uri(result.run_uri, 12), "predictions.parquet"), data)
    folder = storage.local_path(version_uri(root.as_uri(), register(result.run_uri, root=root.as_uri(), model="m")))
    assert folder is not None
    return folder


def test_compare_shows_the_better_version(run: Run, root: Path) -> None:
    for run_id, right in (("run-a", 0.5), ("run-b", 0.8)):
        registered(root, run_id, predictions(right=right))
    shown = ok(run, "compare", "m@1", "m@2", "--root", str(root))
    assert "A: m@1, B: m@2\n" in shown
    assert "m@2 is better by 0." in shown
    assert "more than chance" in shown
    assert "SYNTHETIC" not in shown
    move(root.as_uri(), "m", "champion", 1, expected=None, by="anna", reason="first")
    found = json.loads(ok(run, "compare", "m@champion", "m", "--json", "--root", str(root)))
    assert (found["first"], found["second"], found["dialogues"], found["synthetic"]) == ("m@1", "m@2", 31, False)
    assert f"{found['differences']['macro_f1']['difference']:+.4f}" in shown


def test_compare_calls_synthetic_data_synthetic(run: Run, root: Path) -> None:
    registered(root, "run-a", predictions(), synthetic=True)
    shown = ok(run, "compare", "m", "m", "--root", str(root))
    assert "No difference that 31 dialogues could show: m@1 minus m@1 is +0.0000 weighted F1" in shown
    assert "A: m@1, B: m@1 (SYNTHETIC)\n" in shown
    assert "SYNTHETIC data: numbers show that the pipeline works" in shown


def test_compare_refuses(run: Run, root: Path) -> None:
    first = registered(root, "run-a", predictions())
    registered(root, "run-b", predictions(dialogues=30))
    assert "first differ where m@1 has dialogue d" in refused(run, "compare", "m@1", "m@2", "--root", str(root))
    assert "must hold the alias m@x, but m has none" in refused(run, "compare", "m@1", "m@x", "--root", str(root))
    assert "a version m@3" in refused(run, "compare", "m@3", "m@1", "--root", str(root))
    (first / "predictions.parquet").write_bytes(b"tampered")
    assert "predictions.parquet must hold the" in refused(run, "compare", "m@1", "m@1", "--root", str(root))
