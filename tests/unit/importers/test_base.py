"""A feature set as a table: what its manifest says is carried over."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from ada2i import storage
from ada2i.data import shards
from ada2i.data.manifest import FeatureSet, Manifest, open_features, read_shard
from ada2i.data.provenance import EncoderInfo, ModalityOrigin, Origin
from ada2i.errors import DataError, IntegrityError
from ada2i.importers.join import import_joined
from ada2i.importers.table import import_table
from ada2i.modalities import Modality
from ada2i.records import Recipe
from tests.unit.data.tables import WIDTHS, corpus, shard_table, write

DIALOGUES = [("train", "a", 3), ("train", "b", 2), ("dev", "c", 1), ("test", "d", 2)]


def origin() -> Origin:
    def of(modality: Modality) -> ModalityOrigin:
        info = EncoderInfo(
            name=f"enc-{modality}", modality=modality, width=WIDTHS[modality], licence="", source="", weights_digest=""
        )
        return ModalityOrigin(encoder=info, items=8, vectors=8, missing={}, flagged={}, measures={})

    return Origin(
        kind="folder",
        location="/calls",
        licence="ours",
        media={},
        modalities={m: of(m) for m in WIDTHS},
        notes=(),
        problems=0,
        first_problems=(),
        recipe=Recipe(config={"encoders": {}, "media": {}}, encoders=dict.fromkeys(WIDTHS, "digest")),
    )


@pytest.fixture(params=[False, True], ids=["imported", "extracted"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureSet:
    extraction = shards.Extraction("inputs", origin(), lambda *_: {"provenance.parquet": b"rows"})
    uri = shards.write_features(
        str(tmp_path / "root"),
        shard_table(DIALOGUES),
        dataset="calls",
        synthetic=True,
        labels=("angry, very", "calm=1"),
        encoders={"text": "old text", "audio": "old audio"},
        dev_rule="dev by hand",
        gate_rule="gate by hand",
        source="recorded by us",
        extraction=extraction if request.param else None,
    )
    return open_features(uri)


def vectors(path: Path) -> str:
    rows = shard_table(DIALOGUES)
    table = {name: rows[name].to_pylist() for name in ("split", "dialogue_id", "utterance_index")}
    return str(write(path, table | {"text_feat": [[1.0] * 4] * rows.num_rows}, None, encoder="new text"))


def kept(manifest: Manifest) -> tuple[object, ...]:
    return manifest.dataset, manifest.synthetic, manifest.labels, manifest.dev_rule, manifest.gate_rule


def rows_of(features: FeatureSet) -> pa.Table:
    return pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])


def test_a_set_is_copied(base: FeatureSet, tmp_path: Path) -> None:
    assert import_table(base.uri, str(tmp_path / "root")) == base.uri
    copy = open_features(import_table(base.uri, str(tmp_path / "other")))
    assert copy.uri == (tmp_path / "other" / "features" / "calls" / base.manifest.fingerprint).as_uri()
    assert copy.manifest == base.manifest
    assert rows_of(copy).equals(rows_of(base))
    assert storage.children(copy.uri) == storage.children(base.uri)


def test_a_set_with_another_name_keeps_the_rest(base: FeatureSet, tmp_path: Path) -> None:
    found = open_features(import_table(base.uri, str(tmp_path / "root"), dataset="other", labels=("x", "y"))).manifest
    assert kept(found) == ("other", True, ("x", "y"), "dev by hand", "gate by hand")
    assert {m: info.encoder for m, info in found.modalities.items()} == {"text": "old text", "audio": "old audio"}
    assert found.origin == base.manifest.origin


def test_a_join_keeps_what_the_base_says(base: FeatureSet, tmp_path: Path) -> None:
    tables: dict[Modality, str] = {"text": vectors(tmp_path / "text.parquet")}
    found = open_features(import_joined(base.uri, str(tmp_path / "root"), tables=tables))
    assert kept(found.manifest) == kept(base.manifest)
    encoders = {m: info.encoder for m, info in found.manifest.modalities.items()}
    assert encoders == {"text": "new text", "audio": "old audio"}
    assert found.manifest.widths == {"text": 4, "audio": 2}
    assert "(from recorded by us) joined with text of" in found.manifest.source
    assert rows_of(found)["label"].to_pylist() == rows_of(base)["label"].to_pylist()
    if (known := base.manifest.origin) is not None:
        assert found.manifest.origin is not None
        assert found.manifest.origin.modalities == {"audio": known.modalities["audio"]}
        assert (found.manifest.origin.licence, found.manifest.origin.recipe) == ("ours", None)


def test_a_set_gives_its_vectors_with_their_encoder(base: FeatureSet, tmp_path: Path) -> None:
    rows = rows_of(base)
    names = ("split", "dialogue_id", "utterance_index", "label")
    table = str(write(tmp_path / "t.parquet", {name: rows[name].to_pylist() for name in names}))
    found = open_features(import_joined(table, str(tmp_path / "root"), tables={"audio": base.uri})).manifest
    assert (found.modalities["audio"].encoder, found.synthetic, found.dataset) == ("old audio", True, "t")


def test_files_of_a_set_are_no_table(base: FeatureSet, tmp_path: Path) -> None:
    write(tmp_path / "root" / "features" / "x.parquet", corpus())
    for place in (f"{base.uri}/part-00000.parquet", str(tmp_path / "root" / "features")):
        with pytest.raises(DataError, match=r"must be a table, but holds files of the feature set file://.*calls/"):
            import_table(place, str(tmp_path / "root"))


def test_a_damaged_set_is_refused(base: FeatureSet, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(str(storage.local_path(base.uri)), copy)
    (copy / "part-00000.parquet").write_bytes((copy / "part-00001.parquet").read_bytes())
    with pytest.raises(IntegrityError, match="must hold the"):
        import_table(str(copy), str(tmp_path / "other"))
    with pytest.raises(IntegrityError, match="must hold the"):
        import_joined(str(copy), str(tmp_path / "other"), tables={"text": vectors(tmp_path / "t.parquet")})
