"""The addresses of the pages that an outcome links to."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines import summary
from pipelines.summary import ray_job_page, ray_jobs_page

INSIDE, OUTSIDE = "http://ray-head:8265", "https://ray.example"


@pytest.mark.parametrize(
    ("submitted", "shown", "page"),
    [
        (INSIDE, OUTSIDE, f"{OUTSIDE}/#/jobs/j-0"),
        (INSIDE, "", f"{INSIDE}/#/jobs/j-0"),
        ("http://user:secret@ray-head:8265", "", f"{INSIDE}/#/jobs/j-0"),
        ("", "", None),
    ],
)
def test_a_job_is_linked_at_the_address_for_browsers(
    monkeypatch: pytest.MonkeyPatch, submitted: str, shown: str, page: str | None
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", submitted)
    monkeypatch.setenv("ADA2I_RAY_DASHBOARD_URL", shown)
    assert ray_job_page("j-0") == page


def test_a_private_cluster_is_shown_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("ADA2I_RAY_DASHBOARD_URL", OUTSIDE)
    assert ray_jobs_page("http://127.0.0.1:8265") == "http://127.0.0.1:8265/#/jobs"


@pytest.mark.parametrize("page", [None, "https://prefect.example/runs/flow-run/1"])
def test_a_flow_run_without_a_page_is_not_linked(monkeypatch: pytest.MonkeyPatch, page: str | None) -> None:
    monkeypatch.setattr(summary, "url_for", lambda *_, **__: page)
    version = SimpleNamespace(
        model="m", number=1, name="m@1", flow_run_id="2", ray_job_id=None, features=SimpleNamespace(uri="file:///f")
    )
    text = "\n".join(summary._links("file:///root", cast("Any", version)))
    assert "None" not in text
    assert text.count("flow run") == (2 if page else 0)  # its own page, and that of the run that trained
