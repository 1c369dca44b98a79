"""Freed memory is kept.

The evidence is the page faults of a process that fills the same large array again and again.
"""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys

from pairx_engine.device.memory import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * (48 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    found = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_large_array_faults_in_once_instead_of_every_time():
    pages = (48 << 20) // 4096
    assert faults("kept") < 2 * pages
    assert faults("default") > 10 * pages
