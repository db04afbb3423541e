import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada2i.data import spool
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.data.splits import DEV_RULE
from ada2i.errors import DataError, InputError
from ada2i.importers.resolve import resolve_features
from ada2i.importers.table import import_table
from tests.unit.data.tables import Columns, corpus, write, written


def imported(source: Path, root: Path, **options: Any) -> FeatureSet:
    return open_features(import_table(str(source), str(root), **options))


def rows_of(features: FeatureSet) -> pa.Table:
    return pa.concat_tables([read_shard(features, entry) for entry in features.manifest.shards])


def refused(tmp_path: Path, source: Path, message: str, **options: Any) -> DataError:
    """Import a bad source, and make sure that the message fits and that nothing was written."""
    root = tmp_path / "root"
    with pytest.raises(DataError, match=message) as caught:
        import_table(str(source), str(root), **options)
    assert written(root) == []
    assert caught.value.exit_code == 2
    return caught.value


# --- what is taken ---


def test_a_table_becomes_a_set(tmp_path: Path) -> None:
    source = write(tmp_path / "My Corpus.parquet", corpus())
    features = imported(source, tmp_path / "root")
    manifest = features.manifest
    assert (manifest.dataset, manifest.synthetic, manifest.labels) == ("my-corpus", False, ("0", "1"))
    assert {name: (info.width, info.encoder) for name, info in manifest.modalities.items()} == {
        "text": (3, "imported"),
        "audio": (2, "imported"),
    }
    assert {name: (info.dialogues, info.utterances) for name, info in manifest.splits.items()} == {
        "dev": (1, 1),
        "test": (1, 2),
        "train": (2, 5),
    }
    assert manifest.dev_rule is None
    assert manifest.source == f"table {source}"


def test_every_value_arrives(tmp_path: Path) -> None:
    columns = corpus() | {
        "speaker": ["A", None, "B", "A", "B", "A", "A", "B"],
        "text": ["one", "", None, "vier", "五", "6", "7", "8"],
        "utterance_id": ["u0", None, *(f"u{number}" for number in range(2, 8))],
    }
    rows = rows_of(imported(write(tmp_path / "x.parquet", columns), tmp_path / "root"))
    back = {(row["dialogue_id"], row["utterance_index"]): row for row in rows.to_pylist()}
    assert len(back) == 8
    for place, key in enumerate(zip(columns["dialogue_id"], columns["utterance_index"], strict=True)):
        for name, values in columns.items():
            expected = "d0_1" if name == "utterance_id" and values[place] is None else values[place]
            assert back[key][name] == expected, (key, name)


def test_without_ids_and_speakers_ids_are_made(tmp_path: Path) -> None:
    rows = rows_of(imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root"))
    assert rows["utterance_id"].to_pylist()[:3] == ["d2_0", "d3_0", "d3_1"]
    assert rows["speaker"].null_count == rows["text"].null_count == 8


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(8)), cut=st.integers(0, 8))
def test_order_of_rows_and_files_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int
) -> None:
    folder, columns = tmp_path_factory.mktemp("corpus"), corpus()
    types = {"audio_feat": pa.list_(pa.float64())}
    whole = imported(write(folder / "one" / "x.parquet", columns), folder / "root", dataset="toy")
    for name, part in (("a", order[:cut]), ("b", order[cut:])):
        write(
            folder / "two" / name / "x.parquet",
            {k: [v[row] for row in part] for k, v in columns.items()},
            TYPES | types,
        )
    assert imported(folder / "two", folder / "root", dataset="toy") == whole


TYPES: dict[str, pa.DataType] = {  # what inference cannot know of a file without rows
    "dialogue_id": pa.string(),
    "utterance_index": pa.int64(),
    "label": pa.int64(),
    "split": pa.string(),
    "text_feat": pa.list_(pa.float64()),
    "audio_feat": pa.list_(pa.float64()),
}


@pytest.mark.parametrize(
    "types",
    [
        {"text_feat": pa.list_(pa.float32())},
        {"text_feat": pa.large_list(pa.float64()), "audio_feat": pa.list_(pa.float32(), 2)},
        {"dialogue_id": pa.large_string(), "utterance_index": pa.uint8(), "label": pa.float32()},
        {"dialogue_id": pa.dictionary(pa.int32(), pa.string()), "split": pa.dictionary(pa.int8(), pa.string())},
    ],
)
def test_types_of_the_file_change_nothing(tmp_path: Path, types: dict[str, pa.DataType]) -> None:
    plain = imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root")
    assert imported(write(tmp_path / "other" / "x.parquet", corpus(), types), tmp_path / "root").uri == plain.uri


def test_integers_serve_as_ids_and_vectors(tmp_path: Path) -> None:
    columns = corpus()
    columns["dialogue_id"] = [int(name[1:]) for name in columns["dialogue_id"]]
    columns["text_feat"] = [[row, -1, 2] for row in range(8)]
    columns["speaker"] = list(range(8))
    rows = rows_of(imported(write(tmp_path / "x.parquet", columns), tmp_path / "root"))
    assert rows["dialogue_id"].to_pylist() == ["2", "3", "3", "0", "0", "1", "1", "1"]
    assert rows["text_feat"].to_pylist()[0] == [5.0, -1.0, 2.0]
    assert rows["speaker"].to_pylist()[0] == "5"


def test_bare_modality_names_serve_where_they_hold_vectors(tmp_path: Path) -> None:
    columns = corpus()
    bare = {name.removesuffix("_feat"): values for name, values in columns.items()} | {"visual": ["a.mp4"] * 8}
    features = imported(write(tmp_path / "x.parquet", bare), tmp_path / "root")
    assert list(features.manifest.modalities) == ["text", "audio"]
    assert rows_of(features)["text"].null_count == 8
    assert imported(write(tmp_path / "y" / "x.parquet", columns), tmp_path / "root").uri == features.uri


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    columns = corpus() | {"sentiment": [0.5] * 8, "nested": [{"a": [1]}] * 8, "audio": [b"wav"] * 8}
    plain = imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root")
    assert imported(write(tmp_path / "y" / "x.parquet", columns), tmp_path / "root").uri == plain.uri


def test_one_dialogue_id_may_serve_in_two_splits(tmp_path: Path) -> None:
    columns = corpus((("train", 2), ("dev", 1), ("test", 2)))
    columns["dialogue_id"] = ["same"] * 5
    assert imported(write(tmp_path / "x.parquet", columns), tmp_path / "root").manifest.splits["train"].dialogues == 1


def test_splits_go_by_many_names(tmp_path: Path) -> None:
    columns = corpus()
    columns["split"] = [{"dev": "Validation", "train": "TRAIN"}.get(name, name) for name in columns["split"]]
    plain = imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root")
    assert imported(write(tmp_path / "y" / "x.parquet", columns), tmp_path / "root").uri == plain.uri


def test_dev_is_cut_from_train_where_it_is_absent(tmp_path: Path) -> None:
    columns = corpus([*[("train", 2)] * 20, ("test", 2)])
    features = imported(write(tmp_path / "x.parquet", columns), tmp_path / "root")
    assert features.manifest.dev_rule == DEV_RULE
    assert {name: info.dialogues for name, info in features.manifest.splits.items()} == {
        "dev": 2,
        "test": 1,
        "train": 18,
    }


# --- labels, names and provenance ---


def test_label_names_come_from_the_call_then_the_file_then_the_labels(tmp_path: Path) -> None:
    recorded = write(tmp_path / "x.parquet", corpus(), label_names="0=calm,1=cross, 2=never")
    assert imported(recorded, tmp_path / "root").manifest.labels == ("calm", "cross", "never")
    assert imported(recorded, tmp_path / "root", labels=("a", "b")).manifest.labels == ("a", "b")


def test_labels_may_be_names(tmp_path: Path) -> None:
    columns = corpus()
    columns["label"] = [("joy", "anger")[label] for label in columns["label"]]
    features = imported(write(tmp_path / "x.parquet", columns), tmp_path / "root")
    assert features.manifest.labels == ("anger", "joy")
    named = imported(write(tmp_path / "x.parquet", columns), tmp_path / "root", labels=("joy", "fear", "anger"))
    assert named.manifest.splits["train"].class_counts == (3, 0, 2)


def test_the_file_tells_its_name_encoders_and_source(tmp_path: Path) -> None:
    for name in ("a", "b"):
        columns = corpus() | {"dialogue_id": [name + old for old in corpus()["dialogue_id"]]}
        source = write(
            tmp_path / "folder" / f"{name}.parquet",
            columns,
            dataset="CMU MOSI",
            source=f"paper {name}",
            encoder="both@1",
            text_encoder="bert@2",
        ).parent
    manifest = imported(source, tmp_path / "root").manifest
    assert manifest.dataset == "cmu-mosi"
    assert manifest.source == f"table {source} (from paper a; paper b)"
    assert {modality: info.encoder for modality, info in manifest.modalities.items()} == {
        "text": "bert@2",
        "audio": "both@1",
    }
    assert imported(source, tmp_path / "root", dataset="Mine").manifest.dataset == "mine"


# --- what is refused: the source and its files ---


def test_a_missing_source(tmp_path: Path) -> None:
    refused(
        tmp_path,
        tmp_path / "nowhere",
        r"/nowhere must be a file \(.parquet, .*\) or a folder with",
    )


def test_a_folder_without_tables(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.md").write_text("a,b\n")
    refused(
        tmp_path,
        tmp_path / "folder",
        r"/folder must be a file \(.parquet, .*\) or a folder with",
    )


def test_files_without_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", {name: [] for name in TYPES}, TYPES)
    refused(tmp_path, source, r"/x.parquet must hold at least one utterance, but has no row in 1 file")


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda _: b"a,b\n1,2\n", lambda data: data[:-9], lambda data: data[9:]]
)
def test_a_file_that_is_no_sound_parquet(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    source = write(tmp_path / "folder" / "a.parquet", corpus()).parent
    (source / "b.parquet").write_bytes(damage((source / "a.parquet").read_bytes()))
    refused(tmp_path, source, rf"^{source.as_uri()}/b.parquet must be a valid Parquet file, but cannot be read: ")


def test_a_page_that_is_damaged(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", corpus())
    data = source.read_bytes()
    source.write_bytes(data[:4] + b"\xff" * 60 + data[64:])
    refused(tmp_path, source, rf"^{source.as_uri()} must be a valid Parquet file, but cannot be read: ")


def test_names_that_are_damaged(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", corpus())
    source.write_bytes(source.read_bytes().replace(b"audio_feat", b"audio\xfffeat"))
    refused(tmp_path, source, rf"^{source.as_uri()} must be a valid Parquet file, but cannot be read: ")


@pytest.mark.parametrize("column", ["dialogue_id", "utterance_index", "label", "split"])
def test_a_missing_column(tmp_path: Path, column: str) -> None:
    columns = {name: values for name, values in corpus().items() if name != column}
    source = write(tmp_path / "x.parquet", columns)
    problem = refused(tmp_path, source, rf"^{source.as_uri()} must have the column `{column}`, but has only `")
    assert problem.context["field"] == column


@pytest.mark.parametrize("column", ["label", "text_feat"])
def test_two_columns_of_one_name(tmp_path: Path, column: str) -> None:
    source = write_twice(tmp_path / "x.parquet", corpus(), column)
    problem = refused(tmp_path, source, rf"^{source.as_uri()} must have one column `{column}`, but has 2 of that name")
    assert problem.context["field"] == column


def test_two_ignored_columns_of_one_name(tmp_path: Path) -> None:
    plain = imported(write(tmp_path / "x.parquet", corpus()), tmp_path / "root")
    source = write_twice(tmp_path / "y" / "x.parquet", corpus() | {"note": ["n"] * 8}, "note")
    assert imported(source, tmp_path / "root").uri == plain.uri


def write_twice(path: Path, columns: Columns, column: str) -> Path:
    """Write a file that has one of its columns twice."""
    table = pq.read_table(write(path, columns))
    pq.write_table(table.append_column(column, table[column]), path)
    return path


def test_no_vector_column(tmp_path: Path) -> None:
    columns = {name: values for name, values in corpus().items() if not name.endswith("_feat")}
    source = write(tmp_path / "x.parquet", columns | {"text": ["hello"] * 8})
    refused(tmp_path, source, rf"^{source.as_uri()} must hold a vector column, lists of numbers in `text_feat`")


def test_a_vector_column_that_one_file_lacks(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.parquet", corpus())
    columns = {name: values for name, values in corpus().items() if name != "audio_feat"}
    lacking = write(tmp_path / "folder" / "b.parquet", columns)
    refused(tmp_path, lacking.parent, rf"^{lacking.as_uri()} must have the column `audio_feat`, as .*/a.parquet has")


@pytest.mark.parametrize(
    ("column", "values", "must", "found"),
    [
        ("utterance_index", ["0"] * 8, "integers", "string"),
        ("dialogue_id", [True] * 8, "text or integers", "bool"),
        ("label", [True] * 8, "class indices (integers) or class names (text)", "bool"),
        ("split", [0] * 8, "text", "int64"),
        ("speaker", [["A"]] * 8, "text or integers", "list<element: string>"),
        ("text", [1] * 8, "text or lists of numbers", "int64"),
        ("text_feat", [["a"]] * 8, "lists of numbers", "list<element: string>"),
        ("audio_feat", [1.0] * 8, "lists of numbers", "double"),
    ],
)
def test_a_wrong_type(tmp_path: Path, column: str, values: list[Any], must: str, found: str) -> None:
    source = write(tmp_path / "x.parquet", corpus() | {column: values})
    message = re.escape(f"Column `{column}` of {source.as_uri()} must hold {must}, but from row 0 on holds {found}.")
    problem = refused(tmp_path, source, message)
    assert (problem.context["field"], problem.context["row"]) == (column, 0)


def test_names_in_one_file_and_indices_in_another(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.parquet", corpus())
    other = write(tmp_path / "folder" / "b.parquet", corpus() | {"label": ["joy"] * 8})
    message = (
        rf"^Column `label` of {other.as_uri()} must hold class indices, as .*/a.parquet does, but from row 0 on holds"
    )
    refused(tmp_path, other.parent, message)


# --- what is refused: values, by row ---


def spoil(column: str, row: int, value: Any) -> Columns:
    columns = corpus()
    columns[column][row] = value
    return columns


BAD_VALUES = [
    ("dialogue_id", 3, None, r"hold a value in every row, but row 3 is null"),
    ("utterance_index", 3, None, r"hold a value in every row, but row 3 is null"),
    ("split", 3, None, r"hold a value in every row, but row 3 \(dialogue 'd1', utterance 1\) is null"),
    ("split", 3, "holdout", r"hold one of train, dev, .*, but row 3 \(dialogue 'd1', utterance 1\) holds 'holdout'"),
    ("split", 3, "x", r"hold one of train, dev, .*, but row 3 \(dialogue 'd1', utterance 1\) holds 'x'"),
    ("label", 3, -1, r"hold integers 0\.\.2, .* of train, but row 3 \(dialogue 'd1', utterance 1\) holds -1\."),
    ("label", 3, 9, r"hold integers 0\.\.2, .* of train, but row 3 \(dialogue 'd1', utterance 1\) holds 9\."),
    ("label", 3, 0.5, r"hold integers 0\.\.2, .* of train, but row 3 \(dialogue 'd1', utterance 1\) holds 0\.5\."),
    ("label", 7, 2, r"hold integers 0\.\.1, .* of train, but row 7 \(dialogue 'd3', utterance 1\) holds 2\."),
    (
        "utterance_index",
        4,
        1,
        r"differ .* row 4 \(dialogue 'd1', utterance 1\) repeats that of row 3 of file://.*x.parquet\.",
    ),
    ("utterance_index", 4, 3, r"count 0, 1, 2.* but row 4 \(dialogue 'd1', utterance 3\) is where 2 is expected\."),
    ("utterance_index", 5, 1, r"count 0, 1, 2.* but row 5 \(dialogue 'd2', utterance 1\) is where 0 is expected\."),
    (
        "utterance_index",
        0,
        -1,
        r"count 0, 1, 2.* but row 0 \(dialogue 'd0', utterance -1\) is where 0 is expected\.",
    ),
    (
        "text_feat",
        3,
        [1.0, 2.0],
        r"hold vectors of one width, and row 0 of .* has width 3, but row 3 \(.*\) has width 2\.",
    ),
    (
        "text_feat",
        0,
        [],
        r"hold vectors of one width, and row 1 of .* has width 3, but row 0 \(.*\) has width 0\.",
    ),
    (
        "text_feat",
        3,
        [1.0, float("nan"), 0.0],
        r"hold finite .* row 3 \(dialogue 'd1', utterance 1\) holds nan at position 1",
    ),
    (
        "text_feat",
        3,
        [1.0, 0.0, float("-inf")],
        r"hold finite .* row 3 \(.*\) holds -inf at position 2 of the vector\.",
    ),
    ("text_feat", 3, [1e39, 0.0, 0.0], r"hold finite float32 .* row 3 \(.*\) holds inf at position 0 of the vector\."),
    ("text_feat", 3, [1.0, None, 0.0], r"hold finite .* row 3 \(.*\) holds nan at position 1 of the vector\."),
]


@pytest.mark.parametrize(("column", "row", "value", "message"), BAD_VALUES)
def test_a_bad_value(tmp_path: Path, column: str, row: int, value: Any, message: str) -> None:
    source = write(tmp_path / "x.parquet", spoil(column, row, value))
    problem = refused(tmp_path, source, rf"^Column `{column}` of {source.as_uri()} must {message}")
    assert (problem.context["uri"], problem.context["field"]) == (source.as_uri(), column)
    assert problem.context["row"] == row


def test_rows_are_counted_in_the_file_that_holds_them(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.parquet", corpus())
    columns = spoil("text_feat", 2, [1.0, 2.0])
    columns["dialogue_id"] = [f"more-{name}" for name in columns["dialogue_id"]]
    bad = write(tmp_path / "folder" / "b.parquet", columns)
    message = (
        rf"^Column `text_feat` of {bad.as_uri()} must .* row 0 of .*/a.parquet has width 3, "
        r"but row 2 \(dialogue 'more-d1', utterance 0\) has width 2\."
    )
    assert refused(tmp_path, bad.parent, message).context["row"] == 2


def test_duplicates_in_two_files_name_both(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.parquet", corpus())
    again = write(tmp_path / "folder" / "b.parquet", corpus())
    message = rf"^Column `utterance_index` of {again.as_uri()} .* repeats that of row 0 of .*/a.parquet; 7 more rows"
    refused(tmp_path, again.parent, message)


def test_a_class_that_train_skips(tmp_path: Path) -> None:
    columns = corpus()
    columns["label"] = [2 * label for label in columns["label"]]
    source = write(tmp_path / "x.parquet", columns)
    refused(
        tmp_path,
        source,
        r"must hold integers 0\.\.1, the indices of the classes of train, but row 1 .* holds 2; 3 more",
    )


def test_a_label_beyond_the_names(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", spoil("label", 6, 2), label_names="0=calm,1=cross")
    refused(tmp_path, source, r"must hold integers 0\.\.1, the indices of the 2 known classes, but row 6 .* holds 2\.")


def test_a_name_that_train_does_not_have(tmp_path: Path) -> None:
    columns = corpus() | {"label": [*["joy", "anger"] * 3, "jy", "joy"]}
    source = write(tmp_path / "x.parquet", columns)
    refused(
        tmp_path, source, r"^Column `label` of .* must hold a known class, one of anger, joy, but row 6 .* holds 'jy'\."
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_rows(tmp_path: Path, split: str) -> None:
    columns = corpus((("train" if split == "test" else "test", 2), ("dev", 2)))
    source = write(tmp_path / "x.parquet", columns)
    refused(tmp_path, source, rf"/x.parquet must hold rows of `split` train and test, but no row has {split}\.")


def test_a_train_split_too_small_to_cut(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", corpus((("train", 9), ("test", 2))))
    refused(tmp_path, source, r"/x.parquet has no dev split, so `train` must hold at least 2 dialogues .* holds 1\.")


@pytest.mark.parametrize(
    ("values", "kind"), [([None] * 8, pa.list_(pa.float32(), 4)), ([None, *[[]] * 7], pa.list_(pa.float32()))]
)
def test_a_modality_that_is_always_missing(tmp_path: Path, values: list[Any], kind: pa.DataType) -> None:
    source = write(tmp_path / "x.parquet", corpus() | {"visual_feat": values}, {"visual_feat": kind})
    refused(
        tmp_path,
        source,
        r"^Column `visual_feat` of .*/x.parquet must hold a vector in at least one row, but is empty in",
    )


@pytest.mark.parametrize("names", ["calm,cross", "0=calm,2=cross", "0=calm,1=", "0=calm,1=calm", ""])
def test_label_names_that_cannot_be_read(tmp_path: Path, names: str) -> None:
    source = write(tmp_path / "x.parquet", corpus(), label_names=names)
    refused(tmp_path, source, rf"^The Parquet key `label_names` of {source.as_uri()} must .*, but is '{names}'\.")


def test_label_names_that_differ_between_files(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a.parquet", corpus(), label_names="0=calm,1=cross")
    other = write(
        tmp_path / "folder" / "b.parquet",
        corpus() | {"dialogue_id": list("abcdefgh"), "utterance_index": [0] * 8},
        label_names="0=cross,1=calm",
    )
    refused(tmp_path, other.parent, rf"of {other.as_uri()} must be calm,cross in all files, but is 'cross,calm'\.")


@pytest.mark.parametrize("labels", [("a", "a"), ("a", "")])
def test_given_labels_that_are_no_names(tmp_path: Path, labels: tuple[str, ...]) -> None:
    source = write(tmp_path / "x.parquet", corpus())
    refused(tmp_path, source, r"^`labels` must be different names, none empty, but are 'a', ", labels=labels)


# --- resolving a location ---


def test_a_location_is_a_set_or_a_table(tmp_path: Path) -> None:
    source, root = write(tmp_path / "x.parquet", corpus()), str(tmp_path / "root")
    features = resolve_features(str(source), root)
    before = written(tmp_path / "root")
    assert resolve_features(str(source), root) == features
    assert resolve_features(features.uri, root) == features
    assert resolve_features(features.uri, str(tmp_path / "other")) == features
    assert written(tmp_path / "root") == before
    assert written(tmp_path / "other") == []


def test_demo_is_the_demo_corpus(tmp_path: Path) -> None:
    features = resolve_features("demo", str(tmp_path))
    assert features.manifest.synthetic
    assert resolve_features("demo", str(tmp_path)) == features


@pytest.mark.parametrize("location", ["", " "])
def test_no_location(tmp_path: Path, location: str) -> None:
    with pytest.raises(InputError, match="A location must be a path or a URI, but is empty"):
        resolve_features(location, str(tmp_path))


# --- published data ---


@pytest.mark.shared
def test_mosi_as_published(tmp_path: Path, shared_data: Path) -> None:
    features = imported(shared_data / "mosi", tmp_path)
    manifest = features.manifest
    assert (manifest.dataset, manifest.labels) == ("cmu-mosi", ("negative", "non-negative"))
    assert manifest.widths == {"text": 100, "audio": 73, "visual": 100}
    counts = {name: (info.dialogues, info.utterances) for name, info in manifest.splits.items()}
    assert np.add(counts["train"], counts["dev"]).tolist() == [62, 1447]
    assert counts["test"] == (31, 752)
    assert counts["dev"][0] == 7
    assert manifest.splits["test"].class_counts == (285, 467)
    assert sum(read_shard(features, entry).num_rows for entry in manifest.shards) == 2199


@pytest.mark.shared
def test_files_of_published_data_that_are_no_corpus(tmp_path: Path, shared_data: Path) -> None:
    refused(tmp_path, shared_data / "mosei" / "labels_only.parquet", "must have the column `label`")
    vectors = shared_data / "meld" / "dev_text768_audio768.parquet"
    refused(tmp_path, vectors, "dev_text768_audio768.parquet must have the column `utterance_index`")
    refused(tmp_path, shared_data / "meld", "must hold tables of one format, but holds CSV .*, Parquet ")


# --- columns that are not read ---


def test_columns_that_are_not_read_are_in_the_manifest_and_not_in_the_fingerprint(tmp_path: Path) -> None:
    plain = open_features(import_table(str(write(tmp_path / "x.parquet", corpus())), str(tmp_path / "one"))).manifest
    more: Columns = {
        "video_feat": [[1.0, 2.0, 3.0]] * 8,
        "embedding": [[1.0]] * 8,
        "Speaker": ["A"] * 8,
        "seconds": [1.5] * 8,
        "empty": [None] * 8,
    }
    table = {name: values for name, values in (corpus() | more).items() if name != "audio_feat"}
    other = open_features(import_table(str(write(tmp_path / "x.parquet", table)), str(tmp_path / "two"))).manifest
    assert plain.unused == {}
    assert other.unused == {
        "video_feat": "3 numbers a row, looks like vectors; name it visual_feat",
        "embedding": "1 numbers a row, looks like vectors; name it audio_feat or visual_feat",
        "Speaker": "text; `speaker` would be read",
        "seconds": "numbers",
        "empty": "nothing",
    }
    whole = open_features(
        import_table(str(write(tmp_path / "x.parquet", corpus() | more)), str(tmp_path / "three"))
    ).manifest
    assert whole.fingerprint == plain.fingerprint


def test_of_many_columns_the_first_are_described(tmp_path: Path) -> None:
    wide: Columns = {f"text_{number}": [0.5] * 8 for number in range(40)}
    found = open_features(import_table(str(write(tmp_path / "x.parquet", corpus() | wide)), str(tmp_path / "root")))
    assert len(found.manifest.unused) == 21
    assert found.manifest.unused["..."] == "20 more"


# --- rows are read in pieces ---


def _changed(**cells: dict[int, Any]) -> Columns:
    columns = {name: list(values) for name, values in corpus().items()}
    for name, values in cells.items():
        held = columns.setdefault(name, [None] * 8)
        for row, value in values.items():
            held[row] = value
    return columns


_BAD: dict[str, Columns] = {
    "a later column is bad first": _changed(speaker={0: 0.5, 5: 1.5, 7: 2.5}, utterance_id={6: 0.5}),
    "a label before all": _changed(label=dict(enumerate("ab c cc ")), speaker={0: 0.5}),
    "no times": _changed(recorded_at={1: "x", 2: "2026-03-31", 7: "y"}),
    "no numbers": _changed(text_feat={2: [1.0, float("nan"), 2.0], 6: [float("inf"), 0.0, 0.0]}),
    "other widths": _changed(audio_feat={3: [1.0], 5: [1.0, 2.0, 3.0]}),
    "no key": _changed(dialogue_id={2: None, 7: " "}),
    "a gap": _changed(utterance_index={7: 9}),
    "other splits": _changed(split={1: "trian", 7: "tets"}),
}


@pytest.mark.parametrize("name", _BAD)
def test_a_message_does_not_depend_on_pieces(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, found = write(tmp_path / "x.parquet", _BAD[name]), []
    for rows in (8192, 3, 1):
        monkeypatch.setattr(spool, "PIECE", rows)
        with pytest.raises(DataError) as caught:
            import_table(str(source), str(tmp_path / "root"))
        found.append((str(caught.value), caught.value.context))
    assert found[1] == found[0] == found[2]


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_of_a_dataset_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="name must not be empty"):
        import_table(str(write(tmp_path / "x.parquet", corpus())), str(tmp_path / "root"), dataset=name)


@pytest.mark.parametrize("file", ["my#calls.parquet", "my?calls.parquet", "my#calls?v=1.parquet"])
def test_marks_of_a_query_are_letters_of_a_local_file(tmp_path: Path, file: str) -> None:
    found = open_features(import_table(str(write(tmp_path / file, corpus())), str(tmp_path / "root"))).manifest
    assert "parquet" not in found.dataset
    assert found.dataset.startswith("my-calls")
