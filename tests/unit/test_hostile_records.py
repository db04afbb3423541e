"""No value in a stored record makes its first use import, contact, or read and write elsewhere.

Each value of each record of a stored root is replaced by hostile ones, and the record is sealed anew, as one who can
write to the storage would. Then everything that reads it runs, while Python reports what the process does.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada2i import checkpoint, storage
from ada2i.cli.registry import registry_list, registry_show
from ada2i.data.manifest import open_features, read_shard
from ada2i.errors import Ada2iError
from ada2i.extraction.encoders import registry as encoders
from ada2i.extraction.request import ExtractionRequest
from ada2i.inference.models import load_model
from ada2i.inference.versions import open_version
from ada2i.prediction.records import PredictionManifest
from ada2i.prediction.request import PredictSpec, raw_corpus
from ada2i.prediction.request import prepare as prepare_prediction
from ada2i.registry.aliases import history
from ada2i.registry.gc import sweep
from ada2i.registry.metrics import measure
from ada2i.registry.pull import pull
from ada2i.registry.references import resolve
from ada2i.registry.verdicts import record, verdicts
from ada2i.registry.verify import verify
from ada2i.registry.versions import register
from ada2i.store import RunFolder, Store
from ada2i.training.dedup import repeats
from ada2i.training.request import TrainSpec
from ada2i.training.request import prepare as prepare_training
from tests.unit.cli.test_gating import judgement
from tests.unit.test_stored import RUN, STORED

pytest.importorskip("transformers")

PREDICTION = next((STORED / "predictions").iterdir()).name
FEATURES = next((STORED / "features" / "stored").iterdir()).name
RECORDS = (
    "registry/stored/versions/1/manifest.json",
    "registry/stored/versions/1/claim.json",
    "registry/stored/aliases/champion/1.json",
    "registry/stored/verdicts/1.json",
    f"features/stored/{FEATURES}/manifest.json",
    f"predictions/{PREDICTION}/request.json",
    f"predictions/{PREDICTION}/manifest.json",
    f"runs/{RUN}/request.json",
    f"runs/{RUN}/result.json",
    f"runs/{RUN}/seed-1/result.json",
    f"runs/{RUN}/seed-1/checkpoints/000000006/manifest.json",
    "extraction/runs/x/request.json",
)
MODULE = "marks_its_import"
ELSEWHERE = Path("/var/tmp/ada2i-elsewhere")  # never made; only named
HOSTILE: tuple[Any, ...] = (
    f"{MODULE}:Encoder",
    "subprocess:Popen",
    "os:system",
    "../../../../../../../../var/tmp/ada2i-elsewhere/x",
    "..%2f..%2f..%2f..%2f..%2f..%2fvar%2ftmp%2fada2i-elsewhere",
    f"{ELSEWHERE}/x",
    ELSEWHERE.as_uri(),
    "http://127.0.0.1:9/x",
    "s3://ada2i-elsewhere/x",
    "hf:ada2i/elsewhere",
    "<script>alert(1)</script>",
    "[/bold][link=http://127.0.0.1:9]x",
    "\x1b]0;x\x07",
    "a\0b",
    "",
    "..",
    "x" * 5_000,
    10**400,
    -1,
    1e308,
    None,
    [],
    {},
    ["../x"],
    {"../x": {"size": 1, "sha256": "0" * 64}},
)


class Watch:
    """Collects what this process does outside of a folder."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)  # for as long as the process lives

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn"):
            self.seen.append(f"{event} {arguments}")
        elif event == "import" and arguments[0] == MODULE:
            self.seen.append(f"import {MODULE}")
        elif event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            self._look(event, arguments[0], writes=bool(writes))
        elif event in ("os.remove", "os.mkdir", "os.rmdir") and arguments[-1] != -1:
            pass  # a name in a folder that is open: part of a deletion that was reported as a whole
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "shutil.rmtree"):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                self._look(event, path, writes=True)

    def _look(self, event: str, path: Any, *, writes: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        found = os.path.realpath(os.fsdecode(path)) if not isinstance(path, bytes) or b"\0" not in path else ""
        if found.startswith(str(ELSEWHERE)) or (
            writes and not found.startswith((str(self.inside), "/dev/", "/proc/")) and not found.endswith(".pyc")
        ):
            self.seen.append(f"{event} {found}")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with every kind of record."""
    folder = tmp_path_factory.mktemp("hostile") / "store"
    shutil.copytree(STORED, folder)
    record(folder.as_uri(), judgement(1, passed=True).model_copy(update={"model": "stored"}), by="anna")
    config = {"encoders": {"text": {"spec": "minilm", "settings": {}}}}
    request = ExtractionRequest.model_validate(
        {"run_id": "x", "root": folder.as_uri(), "kind": "folder", "location": str(folder), "config": config}
    )
    storage.put(f"{folder.as_uri()}/extraction/runs/x/request.json", request.stored())
    copy = tmp_path_factory.mktemp("unwatched")
    shutil.copytree(folder, copy / "store")
    for use in uses((copy / "store").as_uri(), copy):  # what torch makes when it is first used is not watched
        with suppress(Ada2iError):
            use()
    return folder


def uses(root: str, folder: Path) -> Iterator[Callable[[], object]]:
    """Yield everything that reads a record first."""
    features, run = f"{root}/features/stored/{FEATURES}", f"{root}/runs/{RUN}"
    for reference in ("stored", "stored@1", "stored@champion"):
        yield lambda reference=reference: resolve(root, reference)  # type: ignore[misc]
        yield lambda reference=reference: registry_show(reference, as_json=False, root=root)  # type: ignore[misc]
    yield lambda: registry_list("stored", as_json=False, root=root)
    yield lambda: verify(root, "stored")
    yield lambda: history(root, "stored", "champion")
    yield lambda: verdicts(root, "stored")
    yield lambda: list(measure(root))
    yield lambda: pull(root, "stored@1", folder / "pulled" / "copy")
    yield lambda: load_model(*open_version(root, "stored@champion"))
    yield lambda: [read_shard(open_features(features), entry) for entry in open_features(features).manifest.shards]
    spec = PredictSpec(version="stored@champion", source=features)
    yield lambda: prepare_prediction(spec, root=root)
    yield lambda: prepare_prediction(spec, root=root, run_id=PREDICTION)
    yield lambda: PredictionManifest.load(f"{root}/predictions/{PREDICTION}/manifest.json")
    raw = PredictSpec(version="stored@champion", source=f"corpus:folder:{folder}")
    yield lambda: _checked(raw_corpus(raw, root=root))
    yield lambda: prepare_training(TrainSpec(features=features), root=root, run_id=RUN)
    yield lambda: repeats(RunFolder(run).request(), root=root, model="stored")
    yield lambda: Store.open(root).unfinished_runs()
    yield lambda: register(run, root=root, model="stored")
    yield lambda: checkpoint.check(f"{run}/seed-1/checkpoints/000000006")
    yield lambda: ExtractionRequest.load(f"{root}/extraction/runs/x/request.json")
    yield lambda: sweep(root, "stored", older_than_s=0.0, versions_older_than_s=0.0)


def _checked(spec: Any) -> None:
    for modality, name in spec.encoders.items() if spec else ():
        if name not in (None, "none"):
            encoders.check(name, modality, {})


def places(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a JSON tree."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        yield (*before, name)
        yield from places(child, (*before, name))


def sealed(content: dict[str, Any]) -> bytes:
    """Return a record's bytes with a seal of its own, as ``Record.stored`` does."""
    content.pop("seal", None)
    blank = json.dumps(content, indent=1).replace("{", '{\n "seal": "' + "0" * 64 + '",', 1).encode() + b"\n"
    return blank.replace(b"0" * 64, storage.digest(blank).encode(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_value_reaches_nothing(
    watch: Watch, original: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(original, folder / "store")
    content = json.loads((folder / "store" / name).read_text())
    content.pop("seal", None)
    for _ in range(data.draw(st.integers(1, 2), label="changes")):
        *path, last = data.draw(st.sampled_from(list(places(content))), label="field")
        value, tree = deepcopy(data.draw(st.sampled_from(HOSTILE), label="value")), content
        for step in path:
            tree = tree[step]
        if isinstance(tree, dict) and data.draw(st.booleans(), label="as the name"):
            tree[str(value)] = tree.pop(last)
        else:
            tree[last] = value
    (folder / "store" / name).write_bytes(sealed(content))
    watch.seen.clear()
    for use in uses((folder / "store").as_uri(), folder):
        watch.inside = folder.resolve()
        try:
            with suppress(Ada2iError):
                use()
        finally:
            watch.inside = None
    shutil.rmtree(folder)
    assert watch.seen == []


def test_the_watch_sees(watch: Watch, tmp_path: Path) -> None:
    """The property holds because nothing happens, not because nothing is seen."""
    watch.seen.clear()
    watch.inside = tmp_path / "inside"
    try:
        (tmp_path / "outside").touch()
        with suppress(OSError):
            (ELSEWHERE / "x").read_text()
        with suppress(ImportError):
            __import__(MODULE)
        with suppress(OSError):
            os.rename(tmp_path / "outside", ELSEWHERE / "y")
    finally:
        watch.inside = None
    assert [seen.split()[0] for seen in watch.seen] == ["open", "open", "import", "os.rename", "os.rename"]
