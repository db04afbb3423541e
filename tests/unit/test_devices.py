"""The settings of torch on a GPU, which can be read on a CPU too; nothing here computes on a GPU."""

import os
from collections.abc import Iterator

import pytest
import torch

from ada2i import devices
from ada2i.errors import ConfigError
from ada2i.presets import resolve

CUDA = torch.device("cuda")


def attention() -> bool:
    return bool(torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with devices.restored():
        yield


def test_a_cpu_needs_nothing() -> None:
    devices.prepare(torch.device("cpu"), deterministic=True, tf32=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert devices.memory_of(torch.device("cpu")) == 0


def test_a_deterministic_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.prepare(CUDA, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()  # else attention stays nondeterministic
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cudnn.deterministic
    assert not attention()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    devices.prepare(CUDA, deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_a_choice(*, tf32: bool) -> None:
    devices.prepare(CUDA, tf32=tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("device", "current"), [("cuda:1", ["cuda:1"]), ("cuda:0", ["cuda:0"]), ("cuda", [])])
def test_a_numbered_gpu_becomes_the_current_one(
    device: str, current: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda there: found.append(str(there)))
    devices.prepare(device)
    assert found == current


def test_the_callers_settings_come_back() -> None:
    before = torch.backends.cudnn.allow_tf32, attention()
    with devices.restored():
        devices.prepare(CUDA, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.allow_tf32, attention()) == before


def test_the_fields() -> None:
    default = resolve(preset="corrected", settings="demo", overrides={}).resources
    assert (default.deterministic, default.tf32) == (True, False)
    assert resolve(preset="corrected", settings="demo", overrides={"resources.tf32": True}).resources.tf32
    with pytest.raises(Exception, match=r"`resources\.tf32` must be false for the preset reference, whose numbers"):
        resolve(preset="reference", settings="demo", overrides={"resources.tf32": True})


def test_an_operation_that_cannot_be_deterministic_is_explained() -> None:
    text = "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_...'. You can turn"
    with (
        pytest.raises(
            ConfigError, match=r"but: cumsum_cuda_kernel does not have .* Set `resources\.deterministic=false`"
        ),
        devices.explained(),
    ):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="out of memory"), devices.explained():
        raise RuntimeError("out of memory")
