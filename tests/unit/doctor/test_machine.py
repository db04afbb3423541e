"""Packages out of bounds, and disks without room."""

import importlib.metadata
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ada2i.doctor import machine
from ada2i.doctor.check import Check


def reported(monkeypatch: pytest.MonkeyPatch, declared: list[str], installed: dict[str, str]) -> dict[str, Check]:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: declared)
    monkeypatch.setattr(importlib.metadata, "version", version)
    return {check.name: check for check in machine.check_packages()}


def test_this_environment_is_within_its_bounds() -> None:
    assert {check.status for check in machine.check_packages()} == {"ok"}


def test_known_bad_versions_are_reported_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["fastapi<0.151,>=0.139", "sqlalchemy[asyncio]<2.1,>=2.0", "ray[train]==2.60.0", "numpy>=2"]
    installed = {"fastapi": "0.165.0", "sqlalchemy": "2.1.9", "ray": "2.61.0", "numpy": "2.4.6"}
    found = reported(monkeypatch, declared, installed)
    assert {name: check.status for name, check in found.items()} == {
        "package fastapi": "fail",
        "package sqlalchemy": "fail",
        "package ray": "fail",
    }
    assert found["package sqlalchemy"].found == "2.1.9, but <2.1,>=2.0 is needed"
    assert found["package sqlalchemy"].todo.startswith("From 2.1 on Prefect's schedules stop silently. Run: ")


def test_extras_may_be_absent_but_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ['av<19,>=18; extra == "extract"', 'opensmile>=2.6; extra == "opensmile"', "torch>=2.13"]
    found = reported(monkeypatch, declared, {"av": "17.0.0"})
    assert {name: check.status for name, check in found.items()} == {"package av": "warn", "package torch": "fail"}
    assert found["package torch"].found == "not installed"


def test_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**29))
    statuses = [
        machine.check_room("disk", tmp_path, least=least * 2**29, enough=enough * 2**29).status
        for least, enough in ((1, 2), (1, 4), (4, 8))
    ]
    assert statuses == ["ok", "warn", "fail"]


def test_shared_memory_is_not_needed_where_ray_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://ray-head:8265")
    monkeypatch.setattr("ada2i.doctor.machine._OBJECT_STORE", 1 << 60)  # more than any machine has
    found = {check.name: check for check in machine.check_machine()}
    assert found["shared memory"].status == "skipped"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert {check.name: check for check in machine.check_machine()}["shared memory"].status == "fail"
