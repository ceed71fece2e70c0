"""Memory that a training frees: it is reused without page faults, and returned at the end."""

import ctypes
import subprocess
import sys

import pytest

# Frees 64 MB five times, and prints the page faults, and the memory in MB before and after its return.
CODE = """
import resource, torch
from pathlib import Path
from engine.runtime.process import return_freed_memory
from engine.training.state import keep_freed_memory

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

keep_freed_memory()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
faults, kept = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, megabytes()
return_freed_memory()
print(faults, kept, megabytes())
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="it needs glibc")
def test_freed_memory_is_reused_without_page_faults_and_returned_in_the_end():
    output = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    faults, kept, returned = map(int, output.split())
    assert faults < 2**26 // 4096  # of five times as many
    assert returned < kept - 50
