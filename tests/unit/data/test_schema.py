import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i.data import schema
from ada2i.errors import DataError


def test_schema_holds_the_plain_columns_then_the_modalities_in_their_order() -> None:
    shape = schema.shard_schema({"visual": 4, "text": 2})
    assert shape.names == [
        "dialogue_id",
        "utterance_index",
        "utterance_id",
        "speaker",
        "text",
        "label",
        "split",
        "text_feat",
        "visual_feat",
    ]
    assert shape.field("text_feat").type == pa.list_(pa.float32(), 2)
    assert [field.name for field in shape if field.nullable] == ["speaker", "text", "text_feat", "visual_feat"]
    assert schema.widths_of(shape) == {"text": 2, "visual": 4}


@given(st.lists(st.booleans(), max_size=8), st.integers(1, 4), st.integers(0, 8))
def test_vectors_survive_packing_and_any_slicing(present: list[bool], width: int, cut: int) -> None:
    there = np.array(present, np.bool_)
    values = np.arange(len(there) * width, dtype=np.float32).reshape(-1, width) + 1
    packed = schema.pack_vectors(values, there)
    column = pa.chunked_array([packed[:cut], packed[cut:]])
    unpacked, found = schema.unpack_vectors(column)
    assert packed.null_count == (~there).sum()
    np.testing.assert_array_equal(found, there)
    np.testing.assert_array_equal(unpacked, np.where(there[:, None], values, 0))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"dialogue_id,label\n" * 9, b"PAR1" + b"x" * 90 + b"PAR1"])
def test_what_is_no_parquet_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^s3://b/x.parquet must be a valid Parquet file, but cannot be read: .+"):
        schema.open_parquet(data, "s3://b/x.parquet")
