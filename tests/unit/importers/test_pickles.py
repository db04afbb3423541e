"""Pickles are read, never run: what the field writes arrives, and anything else is refused by name."""

import builtins
import contextlib
import io
import os
import pickle
import random
import subprocess
import tracemalloc
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ada2i.errors import DataError
from ada2i.importers import pickle_child
from ada2i.importers.pickles import load_pickle
from ada2i.importers.published import import_pickle

MIB = 2**20


def saved(path: Path, value: object, protocol: int = 4) -> str:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return str(path)


def refused(tmp_path: Path, data: bytes, message: str) -> DataError:
    """Read bytes that must be refused, while this process takes next to no memory."""
    path = tmp_path / "bad.pkl"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            load_pickle(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 2 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.message.startswith(f"{path} must be a ")
    return caught.value


# --- what is read ---


class Called:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def corpus() -> dict[str, Any]:
    return {
        "vectors": {0: [np.arange(3, dtype=np.float32), np.ones(3, np.float64)], "d": np.asfortranarray(np.eye(2, 3))},
        "kinds": [np.arange(3, dtype=">i4"), np.array([True, False]), np.array(2.5)],
        "scalars": [np.float32(0.5), np.int64(7), np.bool_(True), np.str_("x")],
        "words": np.array(["ab", "c"]),
        "objects": np.array([[1], "two", None], dtype=object),
        "plain": [
            None,
            True,
            False,
            0,
            -1,
            2**40,
            0.25,
            "ü\x92",
            b"\x00\xff",
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
            (1, 2, 3, 4),
        ],
        "sets": [{1, "b"}, set()],
        "ordered": OrderedDict([("b", 1), ("a", [2])]),
    }


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_the_field_writes_arrives(tmp_path: Path, protocol: int) -> None:
    value, found = corpus(), load_pickle(saved(tmp_path / "x.pkl", corpus(), protocol))
    assert isinstance(found, dict)
    assert list(found) == list(value)
    for place, array in [(0, value["vectors"][0][0]), (1, value["vectors"][0][1])]:
        assert found["vectors"][0][place].dtype == array.dtype
        assert found["vectors"][0][place].tolist() == array.tolist()
    assert found["vectors"]["d"].tolist() == value["vectors"]["d"].tolist()
    assert [array.tolist() for array in found["kinds"]] == [array.tolist() for array in value["kinds"]]
    assert found["scalars"] == [0.5, 7, True, "x"]
    assert (found["words"], found["objects"]) == (["ab", "c"], [[1], "two", None])
    for name in ("plain", "sets", "ordered"):
        assert found[name] == value[name]


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_oldest_protocols(tmp_path: Path, protocol: int) -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": ({"c"}, 2**40)}
    assert load_pickle(saved(tmp_path / "x.pkl", value, protocol)) == value


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numpy_of_both_module_paths(tmp_path: Path, core: bytes) -> None:
    data = pickle.dumps({"a": np.arange(3), "b": np.float64(1)}, protocol=2)
    path = tmp_path / "x.pkl"
    path.write_bytes(data.replace(b"numpy._core.", core + b"."))
    found = load_pickle(str(path))
    assert isinstance(found, dict)
    assert (found["a"].tolist(), found["b"]) == ([0, 1, 2], 1.0)


def test_text_and_arrays_of_python_2(tmp_path: Path) -> None:
    content = np.arange(2, dtype="<f4").tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\x00\x85U\x01bt\x52q\x03(K\x01K\x02\x85"
        b"cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87\x52q\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + content + b"tbh\x03"
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02(U\x08don\x92t go" + array + b"c__builtin__\nset\n]K\x05a\x85Rt.")
    found = load_pickle(str(path))
    assert isinstance(found, tuple)
    assert (found[0], found[3]) == ("don\x92t go", {5})
    assert found[1] is found[2]
    assert found[1].tolist() == [0.0, 1.0]


def test_shared_values_stay_shared(tmp_path: Path) -> None:
    shared = [1, 2]
    found = load_pickle(saved(tmp_path / "x.pkl", [shared, shared]))
    assert isinstance(found, list)
    assert found[0] is found[1]


def test_a_large_file_is_no_bomb(tmp_path: Path) -> None:
    random_ = np.random.RandomState(0)
    value = {d: [random_.standard_normal(300).astype(np.float32) for _ in range(10)] for d in range(300)}
    found = load_pickle(saved(tmp_path / "x.pkl", value, 2))
    assert isinstance(found, dict)
    assert all(np.array_equal(a, b) for d in value for a, b in zip(value[d], found[d], strict=True))


# --- what is refused: names ---


def calls(sentinel: str) -> list[tuple[object, str]]:
    code = f"open({sentinel!r}, 'w').close()"
    return [
        (Called(os.system, f"touch {sentinel}"), f"{os.system.__module__}.system"),
        (Called(builtins.eval, code), "builtins.eval"),
        (Called(builtins.exec, code), "builtins.exec"),
        ({"a": [1, (Called(Called, 1), Called(os.system, f"touch {sentinel}"))]}, f"{__name__}.Called"),
        ([Called(set, [Called(builtins.eval, code)])], "builtins.eval"),
        (Called(getattr, Called(__import__, "os"), "system"), "builtins.getattr"),
        (Called(bytearray, 2**30), "builtins.bytearray"),
        (Called(np.zeros, 2**30), r"numpy.zeros"),
        (Called(np.load, sentinel), r"numpy.load"),
    ]


@pytest.mark.parametrize("case", range(9))
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_runs_nothing_and_is_named(tmp_path: Path, case: int, protocol: int) -> None:
    sentinel = tmp_path / "ran"
    value, name = calls(str(sentinel))[case]
    data = pickle.dumps(value, protocol=protocol)
    problem = refused(tmp_path, data, r"names `.*`, which no published feature file needs\. No code")
    found = str(problem.context["name"]).replace("__builtin__", "builtins").replace("posix", os.system.__module__)
    assert found.endswith(name.rpartition(".")[2])
    assert f"`{problem.context['name']}`" in problem.message
    assert not sentinel.exists()


def test_the_hostile_pickles_do_run_elsewhere(tmp_path: Path) -> None:
    value, _ = calls(str(tmp_path / "ran"))[0]
    pickle.loads(pickle.dumps(value))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "names `os.system`"),
        (b"cos\nsystem\n(S'touch x'\ntR.", "names `os.system`"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.", "names `posix.system`"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n.",
            "names `torch._utils._rebuild_tensor_v2`.* save its tensors as numpy",
        ),
        (b"cnumpy.core.multiarray\nfromfile\n.", "names `numpy.core.multiarray.fromfile`"),
        (b"cnumpy\nndarray.tofile\n.", "names `numpy.ndarray.tofile`"),
        (b"cnumpy\nndarray\n(I1073741824\ntR.", "takes more than .* MiB|declares|valid pickle|must be a"),
        (b"Pid\n.", "valid pickle"),
        (b"\x80\x02\x82\x01.", "valid pickle"),
        (b"\x80\x05\x97.", "valid pickle"),
        (b"]}b.", "valid pickle"),
        (b"c__builtin__\nset\n}b.", "must be a"),
        (b"K\x01)R.", "valid pickle"),
        (b"c__builtin__\nlist\n.", r"holds the name `builtins.list` as a value, which is not data"),
        (b"cnumpy\ndtype\n(S'f4'\ntR.", "holds a Float32DType as a value"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "holds a VoidDType as a value"),
        (b"cnumpy\ndtype\n(S'(9,9)f4'\ntR.", "as a value, which is not data"),
        (b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.", "encodes a str as 'zlib'"),
        (b"]]\x85}(h", "valid pickle"),
    ],
)
def test_other_tricks(tmp_path: Path, data: bytes, message: str) -> None:
    refused(tmp_path, data, message)


# --- what is refused: bombs ---


def array_bytes(shape: tuple[int, ...], content: bytes, kind: str = "u1") -> bytes:
    sides = b"".join(b"I%d\n" % side for side in shape)
    return (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(" + sides + b"t"
        b"cnumpy\ndtype\n(S'" + kind.encode() + b"'\nI0\nI1\ntR(K\x03S'<'\nNNNI-1\nI-1\nK\x00tb\x89"
        b"C" + bytes([len(content)]) + content + b"tb."
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_bytes((2**30,), b""), "valid pickle"),
        (array_bytes((2**40, 2**40), b"1234"), "takes more than 256 MiB"),
        (array_bytes((4,), b"1234", "f8"), "valid pickle"),
        (array_bytes((1,) * 5, b"1"), "declares an array of 5 dimensions"),
        (array_bytes((-1, -4), b"1234"), "valid pickle"),
        (array_bytes((1,), b"1234", "U1000000"), "must be a"),
        (array_bytes((1,), b"\xff\xff\xff\xff", "U1"), "valid pickle"),
        (array_bytes((2**30,), b"", "O"), "must be a"),
        (b"\x80\x04\x8e" + (2**30).to_bytes(8, "little") + b"x.", "takes more than 256 MiB"),
        (b"\x80\x05\x96" + (2**30).to_bytes(8, "little") + b"x.", "takes more than 256 MiB"),
        (b"\x80\x02\x8b" + (2**30).to_bytes(4, "little") + b"x.", "takes more than 256 MiB"),
        (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "holds an integer of 2039 bits"),
        (b"I" + b"9" * 4000 + b"\n.", "holds an integer of "),
        (b"L" + b"9" * 10_000 + b"L\n.", "valid pickle"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "takes more than 256 MiB"),
        (b"cnumpy\nndarray\n(I1073741824\ntR.", "takes more than 256 MiB"),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, data: bytes, message: str) -> None:
    refused(tmp_path, data, message)


@pytest.mark.parametrize(
    "again",
    [
        b"h\x00c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R",  # one text of a MiB, encoded again and again
        b"c__builtin__\nlist\nh\x01\x85R",  # one long list, copied again and again
        b"c__builtin__\nset\nh\x01\x85R",
    ],
)
def test_a_gibibyte_by_repetition(tmp_path: Path, again: bytes) -> None:
    text = b"X" + MIB.to_bytes(4, "little") + b"a" * MIB + b"q\x00"
    numbers = b"](" + b"".join(b"J" + number.to_bytes(4, "little") for number in range(50_000)) + b"eq\x01"
    pairs = b"](" + b"K\x01K\x02\x86" * 50_000 + b"eq\x02"
    refused(
        tmp_path,
        b"\x80\x02(" + text + numbers + pairs + again * 1000 + b"t.",
        "takes more than .* MiB|repeats itself into more than",
    )


@pytest.mark.parametrize(("opened", "closed"), [(b"](", b"e"), (b"(", b"t")])
def test_billion_laughs(tmp_path: Path, opened: bytes, closed: bytes) -> None:
    laughs = opened + b"K\x01" * 10 + closed + b"q\x00"
    for level in range(1, 10):
        laughs += opened + (b"h" + bytes([level - 1])) * 10 + closed + b"q" + bytes([level])
    refused(tmp_path, b"\x80\x02(" + laughs + b"t.", "repeats itself into more than .* values")


def test_tuples_are_no_keys(tmp_path: Path) -> None:
    laughs = b")q\x00" + b"".join(b"0(" + b"h\x00" * 10 + b"tq\x00" for _ in range(30))
    refused(
        tmp_path,
        b"\x80\x02}" + laughs + b"K\x01s.",
        "uses a tuple as a key; keys are text or numbers|as it took too long",
    )


@pytest.mark.parametrize("data", [b"]" * 40_000 + b"a" * 39_999 + b".", b")" + b"\x85" * 40_000 + b"."])
def test_deep_nesting(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "nests values more than 32 deep")


def test_a_cycle(tmp_path: Path) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    refused(tmp_path, pickle.dumps(cycle), "nests values more than 32 deep")


# --- what is refused: damage ---


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"PAR1", b"\x80\x04N", b".", b"0.", b"h\x05.", b"(.", b"\xff"])
def test_what_is_no_pickle(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "must be a (valid )?pickle")


def test_two_pickles_in_one_file(tmp_path: Path) -> None:
    refused(tmp_path, b"N.N.", r"more bytes follow where the pickle ends\. .* Write one object into one file")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_pickle(str(tmp_path / "nowhere.pkl"))


def test_damage_of_any_kind_is_refused_or_read() -> None:
    chance = random.Random(0)
    for protocol in (0, 2, 4, 5):
        whole = pickle.dumps({"a": [np.arange(3.0), "x", {1}], "b": (1, OrderedDict(c=2.5))}, protocol=protocol)
        for _ in range(250):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.choice(b"(.]})tabRcq\x93\x85\x94\x00\x01\xff0h")
            with (
                warnings.catch_warnings(action="ignore"),
                contextlib.suppress(pickle_child.Refused, MemoryError, *pickle_child.DAMAGE),
            ):
                pickle_child.read(io.BytesIO(data), size=len(data))


def test_a_child_that_is_killed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, b"", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    path = saved(tmp_path / "x.pkl", {"a": 1})
    with pytest.raises(DataError, match="the process that read it ended with signal SIGKILL"):
        load_pickle(path)


def as_torch_wrote() -> bytes:
    return pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)


FORMATS: dict[str, tuple[bytes, str]] = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"a Git LFS pointer.*Run `git lfs pull`"),
    "page": (b"\n  <!DOCTYPE html><html></html>", "a web page or XML. Download the file itself"),
    "xml": (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "a web page or XML"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "numpy's own format"),
    "zip": (b"PK\x03\x04\x14", "a zip archive.*Unpack it"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed by gzip. Unpack it"),
    "xz": (b"\xfd7zXZ\x00", "compressed by xz"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "a file of HDF5"),
    "torch": (as_torch_wrote(), "a file of torch in its old format"),
    "tar": (b"a" * 257 + b"ustar\x0000", "a tar archive"),
    "parquet": (b"PAR1\x15", "a Parquet file. Import it with `ada2i import table`"),
    "json": (b'{"trainVid": []}', "JSON or other text"),
    "empty": (b"", "must be a pickle, but is empty. Download"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_another_format_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    data, found = FORMATS[name]
    refused(tmp_path, data, f"must be a pickle, but is .*{found}" if name != "empty" else found)


def test_a_sequence_of_very_many_parts_is_refused_at_once(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pkl", [str(number) for number in range(200_000)])
    with pytest.raises(DataError, match="holds a sequence of 200000 parts"):
        import_pickle(path, str(tmp_path / "root"), dataset="iemocap")
