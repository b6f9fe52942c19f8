"""The device that computes: which one, which precision it is fast at, how it runs out of memory."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from biom3d.cpu import has_bfloat16

KEEP_FREED_MEMORY = (
    (-3, 1 << 30),
    (-1, (1 << 31) - 1),
    (-2, 1 << 28),
)  # M_MMAP_THRESHOLD, M_TRIM_, M_TOP_PAD


def choose_device() -> torch.device:
    """Return the best device of this machine: CUDA, Apple's MPS, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe_device(device: torch.device) -> dict[str, object]:
    """Return what computes, ready for JSON: the kind, the name of a graphics card, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {"device": device.type, "name": name, "threads": torch.get_num_threads()}


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type the device is fast at, or None.

    On a CPU with bfloat16 instructions a training step takes half the time (0.38 -> 0.20 s for 2 patches of
    32x64x64 at width 16 on 2 cores); without them it would be slower than single precision.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and has_bfloat16():
        return torch.bfloat16
    return None


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which networks run on `device`."""
    return autocast_to(half_precision(device), device)


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which networks run on `device` in a 16-bit type, or in single precision."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def prepare_cpu(threads: int | None) -> None:
    """Make this process compute with `threads` threads (None: all) and an allocator that suits networks.

    No more than there are cores for it: eight threads on two cores take turns, and each turn costs.
    """
    _keep_freed_memory()
    if threads:
        torch.set_num_threads(min(threads, os.cpu_count() or threads))


def _keep_freed_memory() -> None:
    """Let glibc keep the memory it frees instead of giving it back after every layer.

    A third of the time of a CPU step is the kernel returning and zeroing pages otherwise (width 32, single
    precision: 1.75 -> 1.04 s). Other C libraries do not know `mallopt`; then nothing happens.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in KEEP_FREED_MEMORY:
            libc.mallopt(parameter, value)


@contextlib.contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn the device's out-of-memory errors into one message."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise MemoryError(f"{what}; {remedy}") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise MemoryError(f"{what}; {remedy}") from error
        raise
