"""How numba functions are compiled and cached: `helper` for inner functions, `kernel` for entry
points.

numba keys its cache on the file of the entry point alone, so an edited helper in another file
would leave machine code of yesterday in use. Entry points here are stamped with a digest of all
kernel sources instead.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

KERNEL_SOURCES = (
    "kernels.py",
    "maths.py",
    "philox.py",
    "sampling.py",
    "replay.py",
    "intrinsics.py",
    "reference/arrays.py",
    "reference/products.py",
    "reference/attention.py",
    "reference/forward.py",
    "vllm_engine/replay.py",
)


@cache
def _source_stamp() -> str:
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def helper(function: Function) -> Function:
    """A function called from kernels; compiled into each of them, without the GIL, without
    fast-math."""
    return cast(Function, njit(nogil=True, fastmath=False, error_model="numpy")(function))


def kernel(*signatures: Any) -> Callable[[Function], Function]:
    """An entry point with fixed signatures, compiled when its module is imported and kept on
    disk."""

    def compile_now(function: Function) -> Function:
        dispatcher = njit(nogil=True, fastmath=False, error_model="numpy")(function)
        dispatcher.enable_caching()
        dispatcher._cache._cache_file._source_stamp = _source_stamp()
        for signature in signatures:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return cast(Function, dispatcher)

    return compile_now
