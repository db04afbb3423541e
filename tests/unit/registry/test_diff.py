"""What differs between two versions."""

import json
from typing import Any

import pytest

from ada2i import presets, storage
from ada2i.errors import DataError, IntegrityError
from ada2i.registry.diff import Change, diff
from ada2i.registry.versions import Version, register, version_uri
from tests.unit.registry.finished import ENVIRONMENT, finished_run, registered


def changed(root: str, run_id: str, *, environment: dict[str, Any] | None = None, **fields: Any) -> Version:
    """Register a run that differs in a few things."""
    result = finished_run(root, run_id)
    config = presets.resolve(preset="reference", settings="iemocap", overrides={"training.seeds": [12, 13], **fields})
    features = result.features.model_copy(update={"fingerprint": "00ff", "uri": "s3://elsewhere"})
    result = result.model_copy(update={"config": config, "features": features})
    storage.put(storage.join(result.run_uri, "result.json"), result.to_json())
    if environment is not None:
        storage.put(storage.join(result.run_uri, "environment.json"), json.dumps(environment).encode())
    return register(result.run_uri, root=root, model="ada2i")


def test_every_part_is_compared(root: str) -> None:
    registered(root, "run-a")
    packages = {"ada2i": "0.1.0", "torch": "2.11.0", "new": "1"}
    environment = {**ENVIRONMENT, "packages": packages, "code": "4f2c9e1"}
    changed(root, "run-b", environment=environment, **{"balance.noise": False, "model.encoder.layers": 3})
    assert diff(root, "ada2i@1", "ada2i") == [
        Change(part="config", field="model.encoder.layers", first=2, second=3),
        Change(part="config", field="balance.noise", first=True, second=False),
        Change(part="features", field="fingerprint", first="3f9a1c0b77d2", second="00ff"),
        Change(part="environment", field="code", first="ada2i 0.1.0", second="4f2c9e1"),
        Change(part="environment", field="packages.torch", first="2.10.0", second="2.11.0"),
        Change(part="environment", field="packages.new", first=None, second="1"),
    ]


def test_scores(root: str) -> None:
    first = registered(root, "run-a")
    second = register(finished_run(root, "run-b", seeds=(12, 14)).run_uri, root=root, model="ada2i")
    found = {change.field: (change.first, change.second) for change in diff(root, "ada2i@1", "ada2i@2")}
    assert found["seed"] == (13, 14)
    assert found["dev_weighted_f1"] == (first.dev_weighted_f1, second.dev_weighted_f1)
    assert found["test.macro_f1.mean"] == tuple(v.test_summary["macro_f1"].mean for v in (first, second))
    assert found["training.seeds"] == ([12, 13], [12, 14])


def test_equal_versions(root: str) -> None:
    registered(root, "run-a")
    registered(root, "run-b")
    assert diff(root, "ada2i@1", "ada2i@1") == []
    assert diff(root, "ada2i@1", "ada2i@2") == []


def test_damage_is_refused(root: str) -> None:
    version = registered(root, "run-a")
    storage.put(storage.join(version_uri(root, version), "config.json"), b"{}")
    with pytest.raises(IntegrityError, match=r"config\.json must hold the"):
        diff(root, "ada2i@1", "ada2i@1")


def test_an_environment_that_is_no_json(root: str) -> None:
    version = registered(root, "run-a")
    uri = version_uri(root, version)
    storage.put(storage.join(uri, "environment.json"), b"text")
    entry = version.files["environment.json"].model_copy(update={"size": 4, "sha256": storage.digest(b"text")})
    files = {**version.files, "environment.json": entry}
    storage.put(storage.join(uri, "manifest.json"), version.model_copy(update={"files": files}).sealed().to_json())
    with pytest.raises(DataError, match=r"environment\.json of ada2i@1 must be JSON"):
        diff(root, "ada2i", "ada2i")
