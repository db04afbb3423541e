"""After a whole run none of the stack's secrets is anywhere but in the files made for them."""

import base64
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ada2i import storage
from ada2i.errors import NotFoundError
from ada2i.jobs import http
from ada2i.registry.versions import find, version_uri
from infra.services import BUCKET
from infra.stack import Stack
from pipelines.train import train_ada2i
from tests.runs import dashboard

pytestmark = pytest.mark.integration

OWN_FILES = {"env", "ray-token", "prefect-auth", "s3.json", "security.toml"}  # mode 0600 in a folder of mode 0700
MODEL = "watched"


@pytest.fixture(scope="module")
def version(stack: Stack, root: str) -> str:
    """A version that the flow has made, with everything that comes with it."""
    overrides = {"training.epochs": 2}
    train_ada2i(features="demo", overrides=overrides, seeds=[1], model=MODEL, root=root)
    return version_uri(root, find(root, MODEL))


@pytest.fixture(scope="module")
def forms(stack: Stack) -> dict[bytes, str]:
    """Every form that a secret could take, with the secret's name."""
    return {form: name for name, secret in secrets(stack).items() for form in spelled(secret)}


def secrets(stack: Stack) -> dict[str, str]:
    """Return the stack's secrets by name."""
    layout = stack.layout
    keys = json.loads(layout.s3_keys.read_text())["identities"][0]["credentials"][0]
    signing = tomllib.loads((layout.folder / "security.toml").read_text())["jwt"]
    return {
        "Ray's token": layout.token.read_text(),
        "Prefect's password": layout.prefect_auth.read_text().partition(":")[2],
        "the S3 secret key": keys["secretKey"],
        "the S3 server's signing key": signing["signing"]["key"],
    }


def spelled(secret: str) -> Iterator[bytes]:
    """Yield a secret in plain text, in base64 at each offset, and as part of a URL."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret.encode()).rstrip(b"=")
        yield whole[-(-8 * before // 6) : -1]  # without characters that share bits with the neighbours


def found(data: bytes, forms: dict[bytes, str]) -> set[str]:
    return {name for form, name in forms.items() if form in data}


def objects(uri: str) -> Iterator[str]:
    for name in storage.children(uri):
        below = list(objects(storage.join(uri, name)))
        yield from below or [storage.join(uri, name)]


def ask_prefect(stack: Stack, path: str) -> Iterator[Any]:
    """Yield all that a filter of Prefect's API returns."""
    auth = base64.b64encode(stack.layout.prefect_auth.read_bytes()).decode()
    url = f"{stack.environment()['PREFECT_API_URL']}/{path}/filter"
    offset, page = 0, [None]
    while page:
        body = json.dumps({"limit": 200, "offset": offset}).encode()
        status, answer = http.request(url, {"Authorization": f"Basic {auth}"}, method="POST", body=body)
        assert status == 200, (path, answer)
        page = json.loads(answer)
        yield from page
        offset += len(page)


def test_the_search_finds_what_is_there(forms: dict[bytes, str], stack: Stack) -> None:
    for name, secret in secrets(stack).items():
        assert len(secret) >= 32
        for data in (
            f"{{'env': '{secret}'}}",
            f"http://u:{quote(secret, safe='')}@host",
            *(base64.b64encode(f"{before}{secret}:behind".encode()).decode() for before in ("", "a", "ab", "abc")),
        ):
            assert found(data.encode(), forms) == {name}, data


@pytest.mark.smoke
def test_objects(version: str, forms: dict[bytes, str], root: str) -> None:
    names = list(objects(f"s3://{BUCKET}"))
    assert any(name.startswith(version) for name in names)
    assert {name: hit for name in names if (hit := found(_object(name), forms))} == {}


def _object(uri: str) -> bytes:
    try:
        return storage.get(uri)
    except NotFoundError:  # a folder in which nothing is left; this server lists it
        return b""


def test_files_of_the_services(version: str, forms: dict[bytes, str], stack: Stack) -> None:
    folders = (stack.layout.folder, stack.layout.ray_folder)
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    logs = {path.name for path in paths if path.suffix == ".log"}
    assert {"s3.log", "prefect.log", "ray.log", "worker.log"} <= logs
    for beginning in ("raylet.", "job-driver-", "worker-"):
        assert any(path.name.startswith(beginning) for path in paths), beginning
    hits = {str(path): hit for path in paths if path.name not in OWN_FILES and (hit := found(_read(path), forms))}
    assert hits == {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # gone since it was listed
        return b""


@pytest.mark.parametrize("path", ["logs", "artifacts", "flow_runs", "task_runs", "deployments", "work_pools"])
def test_prefect_api_shows_no_secret(version: str, forms: dict[bytes, str], stack: Stack, path: str) -> None:
    rows = list(ask_prefect(stack, path))
    assert rows
    assert [row for row in rows if found(json.dumps(row).encode(), forms)] == []


@pytest.mark.parametrize(
    "path",
    ["/api/jobs/", "/api/v0/actors?detail=1&limit=1000", "/api/v0/tasks?detail=1&limit=1000", "/api/train/v2/runs/v1"],
)
def test_ray_api_shows_no_secret(version: str, forms: dict[bytes, str], path: str) -> None:
    reported = json.dumps(dashboard(path))
    assert len(reported) > 100
    assert found(reported.encode(), forms) == set()


def test_job_logs_show_no_secret(version: str, forms: dict[bytes, str], root: str) -> None:
    jobs = [job["submission_id"] for job in dashboard("/api/jobs/") if job["submission_id"]]
    assert any(find(root, MODEL).run_id in job for job in jobs)
    for job in jobs:
        assert found(json.dumps(dashboard(f"/api/jobs/{job}/logs")).encode(), forms) == set()
