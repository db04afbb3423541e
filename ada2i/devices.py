"""How a process uses a GPU: one function sets it up, before the process computes on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ada2i.errors import ConfigError

_REFUSAL = "does not have a deterministic implementation"  # in torch's error
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACE = ":4096:8"  # with which cuBLAS sums in one order


def prepare(device: torch.device | str, *, deterministic: bool = False, tf32: bool = False) -> None:
    """Set up this process for a GPU; do nothing for a CPU.

    Args:
        device: Where this process will compute. One with an index becomes the current device of the calling thread.
        deterministic: Whether the same computation gives the same bits. An operation that cannot then raises an error.
        tf32: Whether products of float32 matrices round their inputs to TF32, which has 10 bits of mantissa.
    """
    there = torch.device(device)
    if there.type != "cuda":
        return
    if there.index is not None:
        torch.cuda.set_device(there)
    if deterministic:
        os.environ.setdefault(_WORKSPACE, _DETERMINISTIC_WORKSPACE)  # cuBLAS reads it at its first product
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a launch per tensor
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    # cuDNN plans attention anew for each shape, and dialogues bring new shapes in every step.
    torch.backends.cuda.enable_cudnn_sdp(False)


def encoding_precision(device: torch.device | str) -> str:
    """Return the precision of an encoder's products on a device: ``bfloat16`` on a GPU, else ``float32``."""
    return "bfloat16" if torch.device(device).type == "cuda" else "float32"


def encoding(device: torch.device | str) -> torch.autocast:
    """Return the context in which an encoder computes on a device, in ``encoding_precision``."""
    half = encoding_precision(device) == "bfloat16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half)


@contextmanager
def explained() -> Iterator[None]:
    """Turn torch's refusal of an operation that cannot be deterministic into a ``ConfigError``."""
    try:
        yield
    except RuntimeError as error:
        if _REFUSAL not in str(error):
            raise
        raise ConfigError(
            f"The model must use deterministic operations on a GPU, but: {str(error).partition('.')[0]}. Set "
            "`resources.deterministic=false` (a resumed run may then differ in the last bits) or "
            "`resources.device=cpu`.",
            field="resources.deterministic",
        ) from error


@contextmanager
def restored() -> Iterator[None]:
    """Give the caller's process its settings of torch back at the end of the block, which may call ``prepare``."""
    cudnn, matmul, memory = torch.backends.cudnn, torch.backends.cuda.matmul, torch.utils.deterministic
    flags = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    filled = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    attention = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = flags
        memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cuda.enable_cudnn_sdp(attention)


def memory_of(device: torch.device | str) -> int:
    """Return the bytes of a GPU's memory; 0 for a CPU."""
    there = torch.device(device)
    return int(torch.cuda.get_device_properties(there).total_memory) if there.type == "cuda" else 0
