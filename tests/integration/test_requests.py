"""Requests to S3, counted by a proxy: they must not grow with the size of a feature set or of the registry."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ada2i import storage, usecases
from ada2i.audit.measures import MEASURES, measures
from ada2i.data import shards
from ada2i.data.manifest import open_features
from ada2i.registry.gc import sweep
from ada2i.registry.metrics import measure
from ada2i.registry.paths import home_uri, number_uri
from ada2i.registry.versions import SWEPT, Version, find, versions
from ada2i.storage.s3 import client_for
from ada2i.store import Store
from ada2i.training.request import TrainSpec
from tests.faults.s3_proxy import Fault, Proxy, proxied
from tests.s3 import own_s3
from tests.unit.promotion.versions import QUICK, early, features

pytestmark = pytest.mark.integration

STORED = Path(__file__).parents[1] / "stored" / "store" / "registry" / "stored" / "versions" / "1" / "manifest.json"
OVERRIDES = {name: value for name, value in QUICK.items() if name != "resources.workers"} | {"training.epochs": 1}


def later(dialogue: int) -> str:
    """Return splits once five more dialogues of train are there."""
    return "train" if dialogue >= 75 else early(dialogue)


RULES = {"dialogues": 5, "utterances": 40, "margin": 0.1, "min_over_floor": -1, "class_drop": 1.0}


@dataclass
class Counted:
    """Requests since the last ``clear``, by method."""

    methods: Counter[str] = field(default_factory=Counter)
    paths: list[str] = field(default_factory=list)

    def plan(self, method: str, path: str) -> Fault | None:
        self.methods[method] += 1
        self.paths.append(f"{method} {path}")
        return None

    def clear(self) -> None:
        self.methods.clear()
        self.paths.clear()

    def shards(self) -> list[str]:
        return [path for path in self.paths if re.search(r"GET .*part-\d+\.parquet", path)]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of an S3 server of this module's own, which this process's environment names."""
    folder = tmp_path_factory.mktemp("requests") / "stack"
    with own_s3(folder), proxied(os.environ["AWS_ENDPOINT_URL"]) as between, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", between.address)
        client_for.cache_clear()
        yield between


@pytest.fixture
def counted(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The requests of a test, on a machine whose cache is empty."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Counted()
    proxy.plan = found.plan
    return found


def night(root: str, uri: str, run_id: str, *, gate: bool = True) -> usecases.Outcome:
    spec = TrainSpec(features=uri, overrides=OVERRIDES, local=True)
    judge = usecases.Gate(RULES, by="test") if gate else None
    return usecases.train(spec, Store.open(root), run_id=run_id, hooks=usecases.Hooks(), gate=judge)


@pytest.mark.parametrize(("size", "number"), [(200_000, 3), (8_000, 20)])
def test_a_night_without_new_data_reads_no_shard(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, size: int, number: int
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", size)
    root = f"s3://ada2i/nights-{size}"
    uri = features(root, early)
    measures(open_features(uri))
    assert len(open_features(uri).manifest.shards) >= number
    counted.clear()
    assert night(root, uri, "first", gate=False).trained
    names = [path.rpartition("/")[2] for path in counted.shards()]
    assert len(names) == len(set(names))  # decoded once; neither audit nor statistics read one
    assert night(root, uri, "judged").what in ("Promoted", "Refused")
    counted.clear()
    assert night(root, uri, "skipped").what == "Skipped"
    assert counted.shards() == []
    assert counted.methods["GET"] <= 10, "\n".join(counted.paths)


def test_measures_are_computed_once_and_for_these_shards_only(counted: Counted) -> None:
    first, other = (features("s3://ada2i/measured", split_of) for split_of in (early, later))
    counted.clear()
    report = measures(open_features(first))
    assert len(counted.shards()) == 3 * len(open_features(first).manifest.shards)  # once, and twice for probes
    counted.clear()
    assert measures(open_features(first)) == report
    assert counted.methods == {"GET": 2}
    storage.put(storage.join(other, MEASURES), storage.get(storage.join(first, MEASURES)))
    counted.clear()
    assert measures(open_features(other)) != report
    assert counted.shards() != []


@pytest.fixture
def registry(counted: Counted) -> str:
    """A root with a model of 1,000 versions of 10 objects each."""
    root, version = "s3://ada2i/registry-of-1000", Version.opened(STORED.read_bytes(), "stored")
    if not storage.exists(storage.join(number_uri(home_uri(root, "stored"), 1000), "manifest.json")):

        def write(number: int) -> None:
            uri = number_uri(home_uri(root, "stored"), number)
            for name in ("claim.json", "config.json", "report.html", "README.md", "weights.safetensors"):
                storage.put(storage.join(uri, name), b"{}")
            manifest = version.model_copy(update={"number": number}).sealed().to_json()
            storage.put(storage.join(uri, "manifest.json"), manifest)

        with ThreadPoolExecutor(8) as writers:
            list(writers.map(write, range(1, 1001)))
    counted.clear()
    return root


def test_a_thousand_versions_are_listed_by_few_requests(counted: Counted, registry: str) -> None:
    assert len(versions(registry, "stored")) == 1000
    counted.clear()
    assert [version.number for version in versions(registry, "stored")] == list(range(1, 1001))
    assert sum(counted.methods.values()) <= 20, counted.methods
    # A version that is deleted changes its manifest, the only object that ever changes.
    storage.put(storage.join(number_uri(home_uri(registry, "stored"), 1000), "manifest.json"), SWEPT)
    assert len(versions(registry, "stored")) == 999


def test_copies_that_were_changed_are_not_used(counted: Counted, registry: str, tmp_path: Path) -> None:
    expected = versions(registry, "stored")
    (folder,) = tmp_path.glob("ada2i-objects-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    for copy in folder.iterdir():
        copy.write_bytes(copy.read_bytes().replace(b'"number": ', b'"number": 9'))
    assert versions(registry, "stored") == expected
    folder.chmod(0o755)
    counted.clear()
    assert versions(registry, "stored") == expected
    assert counted.methods["GET"] > 900


def test_the_exporter_reads_only_what_is_new(counted: Counted, proxy: Proxy) -> None:
    root = "s3://ada2i/exported"
    version = night(root, features(root, early), "run").version
    known: dict[str, float | None] = {}
    first = list(measure(root, known))
    counted.clear()
    assert list(measure(root, known)) == first
    assert [path for path in counted.paths if "list-type" not in path] == []
    assert counted.methods.total() <= 7, counted.paths
    assert find(root, version.model) == version


def test_folders_are_deleted_in_batches(counted: Counted) -> None:
    root = "s3://ada2i/deleted"
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda n: storage.put(f"{root}/folder/{n // 100}/{n}", b"x"), range(1500)))
    storage.put(f"{root}/kept", b"x")
    counted.clear()
    storage.delete_folder(f"{root}/folder")
    assert counted.methods == {"GET": 2, "POST": 2}
    assert list(storage.objects(root)) == ["kept"]


def test_a_sweep_deletes_the_files_of_a_version_in_one_request(counted: Counted) -> None:
    root = "s3://ada2i/swept"
    uri = number_uri(home_uri(root, "m"), 1)
    for name in ("claim.json", "config.json", "weights.safetensors"):
        storage.put(storage.join(uri, name), b"x")
    counted.clear()
    assert len(sweep(root, "m", older_than_s=0.0)) == 3
    assert (counted.methods["POST"], counted.methods["DELETE"]) == (1, 0)
    assert list(storage.objects(uri)) == ["manifest.json"]
