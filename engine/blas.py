"""Which kernels numpy's products use. Nothing here may import numpy: it chooses once, when it is loaded."""

import os
import sys
from pathlib import Path

CORE = "OPENBLAS_CORETYPE"
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
"""What OpenBLAS's kernels for wide registers need of a processor."""
ENOUGH = 8192
"""Bytes of /proc/cpuinfo: the first processor, where there may be hundreds."""


def use_wide_registers(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Have AVX-512 used on AMD processors that have it; to be called before numpy is imported.

    The OpenBLAS inside numpy does not know the latest of them and takes them for processors without it: products
    of one vector with a matrix are as fast, of a few vectors half as fast. Elsewhere it chooses well. A choice that
    stands in the environment already is kept.
    """
    if sys.platform != "linux" or CORE in os.environ:
        return
    try:
        with cpuinfo.open("rb") as file:
            first = file.read(ENOUGH).decode(errors="replace")
    except OSError:
        return
    if "AuthenticAMD" in first and set(first.split()) >= AVX512:
        os.environ[CORE] = "SkylakeX"
