"""Large buffers are reused by the process that freed them."""

import platform
import subprocess
import sys

import pytest

_FAULTS_OF_A_SECOND_BUFFER = """
import resource, sys
import numpy as np
from xprompt_jax import host_memory
if sys.argv[1] == "kept":
  assert host_memory.keep_freed_memory()

def fill():
  np.empty(64 * 2**20, np.uint8).fill(1)  # Freed at once: 16,384 pages.

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(side):
  done = subprocess.run(
      [sys.executable, "-c", _FAULTS_OF_A_SECOND_BUFFER, side],
      check=True,
      capture_output=True,
      text=True,
      # With huge pages, a fault would be 2 MiB.
      env={"NUMPY_MADVISE_HUGEPAGE": "0"},
  )
  return int(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)
def test_a_second_buffer_needs_no_new_pages():
  assert faults("returned") > 16_000
  assert faults("kept") < 100
