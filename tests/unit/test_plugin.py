"""Bare deployment names: found, ambiguous, unknown, and a Prefect that is not as expected."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.plugins import HookContext

from pipelines import plugin


class FakeClient:
    """A client with some deployments, given as ``FLOW/DEPLOYMENT``."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def read_deployments(self, *, deployment_filter: Any, limit: int) -> list[str]:
        wanted = deployment_filter.name.any_
        return [name for name in self.names if name.split("/")[1] in wanted][:limit]

    async def by_full_name(self, name: str) -> str:
        return f"{name} by its full name"


def look_up(client: FakeClient, name: str) -> Any:
    lookup: Any = plugin.accept_bare_name(FakeClient.by_full_name)  # type: ignore[arg-type]  # the fake stands in
    return asyncio.run(lookup(client, name))


def context() -> HookContext:
    return HookContext(prefect_version="any", api_url=None, logger_factory=logging.getLogger)


def test_a_bare_name_means_the_only_deployment_of_that_name() -> None:
    assert look_up(FakeClient("train/nightly", "tune/weekly"), "nightly") == "train/nightly"


def test_a_full_name_goes_to_prefect() -> None:
    assert look_up(FakeClient(), "train/nightly") == "train/nightly by its full name"


def test_an_unknown_name_is_not_found() -> None:
    with pytest.raises(ObjectNotFound):
        look_up(FakeClient("train/nightly"), "weekly")


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"several are called nightly\. Write FLOW/nightly\."):
        look_up(FakeClient("train/nightly", "tune/nightly"), "nightly")


def test_the_client_is_wrapped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefectClient, "read_deployment_by_name", PrefectClient.read_deployment_by_name)
    plugin.setup_environment(ctx=context())
    wrapped = PrefectClient.read_deployment_by_name
    plugin.setup_environment(ctx=context())
    assert PrefectClient.read_deployment_by_name is wrapped
    assert hasattr(wrapped, "__wrapped__")


async def _takes_an_id(self: object, name: str, deployment_id: str) -> None:
    del self, name, deployment_id


@pytest.mark.parametrize("other", [None, print, _takes_an_id])
def test_a_client_that_looks_different_stays(monkeypatch: pytest.MonkeyPatch, other: object) -> None:
    monkeypatch.setattr(PrefectClient, "read_deployment_by_name", other)
    plugin.setup_environment(ctx=context())
    assert PrefectClient.read_deployment_by_name is other


def test_a_prefect_without_such_a_client_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prefect.client.orchestration", SimpleNamespace())
    plugin.setup_environment(ctx=context())
