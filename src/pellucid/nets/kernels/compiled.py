"""C++ functions: compiled for the vectors of this processor, kept in the cache, and called with tensors."""

import ctypes
import hashlib
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ... import files
from ...errors import PellucidError

SOURCES = sorted(Path(__file__).parent.glob("*.cpp")) + sorted(Path(__file__).parent.glob("*.h"))
OPTIONS = ["-std=gnu++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-nostdlib", "-fopenmp"]
VECTORS = {"AVX512": ["-mavx512f", "-mfma"], "AVX2": ["-mavx2", "-mfma"]}
"""What the compiler may use of a processor, by torch's name for what it can do."""
FAILURES = KeyError, OSError, PellucidError, subprocess.SubprocessError, ValueError
"""Another processor, no compiler, no place in the cache, not this compiler, no words for one."""


KINDS = {int: ctypes.c_long, float: ctypes.c_float}
"""What a number is in C; the rest are addresses."""


@lru_cache(1)
def library() -> ctypes.CDLL | None:
    """The compiled functions; none where they cannot be had, or gain nothing."""
    try:
        return built(VECTORS[torch.backends.cpu.get_cpu_capability()])
    except FAILURES:
        return None


def version() -> str:
    """Which functions these are: a key of their source, compiler and vectors, or none."""
    held = library()
    return Path(held._name).stem if held else "none"


def built(vectors: list[str]) -> ctypes.CDLL:
    """The functions for a processor that has such vectors, from the cache or compiled now.

    Nothing is linked: OpenMP's functions are those that torch brought, so that both share one set of threads.
    """
    command = [*shlex.split(os.environ.get("CXX", "c++")), *OPTIONS, *vectors]
    text = b"".join(source.read_bytes() for source in SOURCES)
    place = files.cache("kernels") / f"{hashlib.sha256(repr(command).encode() + text).hexdigest()[:16]}.so"
    if not is_sound(place):
        command += [str(source) for source in SOURCES if source.suffix == ".cpp"]
        with files.whole(place) as temporary:
            subprocess.run([*command, "-o", str(temporary)], check=True, capture_output=True, timeout=120)
            data = temporary.read_bytes()
            temporary.write_bytes(data + hashlib.sha256(data).digest())
    return ctypes.CDLL(str(place), mode=os.RTLD_NOW)


def is_sound(place: Path) -> bool:
    """Whether a file is there and ends with the hash of all before it: a part of a library would end the process."""
    data = place.read_bytes() if place.is_file() else b""
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


def call(name: str, *given: Tensor | int | float) -> int:
    """A function of the addresses of tensors, of numbers, and of the number of threads."""
    values = [v.data_ptr() if isinstance(v, Tensor) else v for v in given]
    return int(function(library(), name, *map(type, given))(*values, torch.get_num_threads()))


@lru_cache
def function(held: Any, name: str, *kinds: type) -> Any:
    """A compiled function by its name and the kinds of its arguments."""
    found = getattr(held, f"pellucid_{name}")
    found.restype, found.argtypes = ctypes.c_long, [KINDS.get(kind, ctypes.c_void_p) for kind in kinds] + [ctypes.c_int]
    return found


def plain(*tensors: Tensor) -> bool:
    """Whether these are whole float32 on a CPU, and nothing looks through them: no compiler, autocast or transform."""
    return (
        all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
        and not any(map(is_traceable_wrapper_subclass, tensors))
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not any(map(torch._C._functorch.is_legacy_batchedtensor, tensors))
        and torch.autograd.forward_ad._current_level < 0
        and library() is not None
    )


LAST = torch.channels_last
LIBRARY = torch.library.Library("pellucid", "DEF")


def operator(schema: str, function: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """Make a function one of torch's operators, which counters and modes see; `shapes` gives empty results."""
    name = LIBRARY.define(schema)
    LIBRARY.impl(name, function, "CPU")
    torch.library.register_fake(f"pellucid::{name}", shapes, lib=LIBRARY)


def room(*shape: int) -> Tensor:
    """A float32 map on the CPU whose channels lie last, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=LAST)


class Scratch(threading.local):
    """Memory that the calls of a thread work in, kept for the next ones."""

    held = torch.empty(0, dtype=torch.float32, device="cpu")

    def of(self, size: int) -> Tensor:
        """So many numbers."""
        if len(self.held) < size:
            self.held = torch.empty(size, dtype=torch.float32, device="cpu")
        return self.held[:size]


scratch = Scratch()
