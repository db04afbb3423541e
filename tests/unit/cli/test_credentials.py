"""No command prints or stores the user, password or signature of a location, whatever its server answers."""

import io
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i import usecases
from ada2i.errors import UnreachableError
from ada2i.jobs import cluster
from ada2i.storage import retry
from ada2i.storage.s3 import client_for
from ada2i.training import launch
from tests.unit.cli.commands import Run
from tests.unit.data.tables import corpus

CANARY = "CANARY"
CLUSTER_OF_ENVIRONMENT = cluster.cluster
STATUSES = (200, 403, 404, 500, 0)  # 0: nothing listens

WEB = [
    "import table URL/t.parquet?SIG",
    "import join URL/t.parquet?SIG --text URL/t.parquet?SIG",
    "import join LOCAL --text URL/t.parquet?SIG",
    "import pickle URL/p.pkl?SIG --dataset iemocap",
    "import meld URL/meld?SIG",
    "import meld LOCAL --features URL/t.parquet?SIG",
    "audit URL/t.parquet?SIG",
    "train URL/t.parquet?SIG --root ROOT",
    "tune URL/t.parquet?SIG --trials 1",
    "reproduce iemocap URL/t.parquet?SIG",
    "predict URL/model?SIG demo",
    "extract folder URL/corpus?SIG",
    "demo-corpus --root URL/x?SIG",
    "registry list --root URL/x?SIG",
    "doctor --root URL/x?SIG",
]
ROOTS = [
    "import table LOCAL --root S3",
    "import table S3/t.parquet",
    "import join LOCAL --text S3/t.parquet",
    "import meld S3",
    "import pickle S3/p.pkl --dataset iemocap",
    "audit S3/t.parquet",
    "train S3/t.parquet",
    "train demo --root S3",
    "predict S3/version demo",
    "predict m@1 S3/t.parquet",
    "extract folder S3/corpus",
    "extract demo-media --root S3",
    "demo-corpus --root S3",
    "registry list --root S3",
    "registry show m@1 --root S3",
    "registry pull m@1 copy --root S3",
    "registry gc m --root S3",
    "compare m@1 m@2 --root S3",
    "doctor --root S3",
]
CLUSTER = ["train demo", "tune demo --trials 1", "reproduce iemocap demo --seeds 1", "extract demo-media", "doctor"]


class Handler(BaseHTTPRequestHandler):
    """Answers with one status, or with the file that a name asks for."""

    def answer(self) -> None:
        status = self.server.status  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = self.path.partition("?")[0]
        body = FILES.get(place.rpartition("/")[2], b"{}") if status == 200 else b"<Error><Code>No</Code></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def table() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values) for name, values in corpus().items()}), sink)
    return sink.getvalue()


def published() -> bytes:
    labels = {"a": [0, 1], "b": [1, 0], "c": [0, 1]}
    vectors = {name: [np.ones(3, np.float32)] * 2 for name in labels}
    return pickle.dumps({"trainVid": ["a", "b"], "testVid": ["c"], "label": labels, "text": vectors})


FILES = {"t.parquet": table(), "p.pkl": published()}


@pytest.fixture(params=STATUSES)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The host and port of a server that always answers with one status."""
    monkeypatch.setattr(retry, "_RETRY_S", -1.0)
    monkeypatch.setattr(retry, "_FIRST_RETRY_S", -1.0)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.status = request.param  # type: ignore[attr-defined]
    if request.param:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    else:
        running.server_close()
    yield f"127.0.0.1:{running.server_address[1]}"
    if request.param:
        running.shutdown()
        running.server_close()


def check(run: Run, folder: Path, command: str, **places: str) -> None:
    """Run a command, and search all that it prints and writes."""
    (folder / "local.parquet").write_bytes(table())
    for name, place in {"LOCAL": str(folder / "local.parquet"), "ROOT": str(folder / "store"), **places}.items():
        command = command.replace(name, place)
    code, out, err = run(*command.split())
    assert CANARY not in out + err, command
    assert "Traceback" not in err, command
    assert code in (0, 1, 2)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not any(CANARY in str(path) or CANARY.encode() in path.read_bytes() for path in files), command


@pytest.fixture(autouse=True)
def _only_named_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    def cluster_of_environment() -> Any:
        if "RAY_API_SERVER_ADDRESS" in os.environ:
            return CLUSTER_OF_ENVIRONMENT()
        raise UnreachableError("No private cluster in this test.")

    for module in (cluster, usecases, launch):
        monkeypatch.setattr(module, "cluster", cluster_of_environment)


@pytest.mark.parametrize("command", WEB)
def test_locations_in_http(run: Run, server: str, tmp_path: Path, command: str) -> None:
    check(run, tmp_path, command, URL=f"http://user:{CANARY}PW@{server}", SIG=f"X-Amz-Signature={CANARY}SIG")


@pytest.mark.parametrize("command", ROOTS)
@pytest.mark.parametrize(
    "place", [f"s3://user:{CANARY}@bucket/x", f"s3://bucket/x?X-Amz-Signature={CANARY}", f"s3:/{CANARY}@bucket/x"]
)
def test_locations_in_s3(run: Run, tmp_path: Path, place: str, command: str) -> None:
    check(run, tmp_path, command, S3=place)


@pytest.mark.parametrize("command", ROOTS)
def test_the_endpoint(run: Run, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{CANARY}@{server}?{CANARY}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{CANARY}KEY")
    client_for.cache_clear()
    check(run, tmp_path, command, S3="s3://bucket/x")


@pytest.mark.slow
@pytest.mark.parametrize("command", CLUSTER)
def test_the_address_of_the_cluster(
    run: Run, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://user:{CANARY}@{server}")
    check(run, tmp_path, command)
