"""The addresses of the pages that an outcome links to."""

import pytest

from pipelines.summary import ray_job_page

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
