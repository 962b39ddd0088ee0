"""Memory that is freed stays with the process where work wants it back at once."""

import ctypes
import subprocess
import sys

import pytest

WORK = """
import resource
{first}
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(20):
    several = [b"x" * (4 << 20) for _ in range(3)]
    del several
print(faults() - before)
"""


def faults(first: str) -> int:
    """Pages that the kernel had to find for twenty times 12 MiB."""
    return int(subprocess.run([sys.executable, "-c", WORK.format(first=first)], capture_output=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_memory_that_is_wanted_again_is_not_given_back() -> None:
    kept = faults("from ftk.core.freed_memory import keep_freed_memory; keep_freed_memory()")
    assert kept < faults("") / 4
