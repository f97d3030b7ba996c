"""How this process holds its memory on the host.

XLA takes a program's temporaries from malloc and gives them back after each
call. glibc returns buffers of that size to the kernel, which then hands out
zeroed pages again at the next call. What that costs depends on shapes: in one
run of xprompt_superglue.gin on two cores the kernel took 12 of 25 minutes of
CPU time, and half a minute since; `python -m benchmarks.host_memory` measures
one shape.
"""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Freed memory up to this size stays with the process.
_KEPT_BYTES = 2**31 - 1  # The most that mallopt takes.


def keep_freed_memory() -> bool:
  """Has glibc reuse large buffers. To be called before JAX starts threads.

  Other C libraries are left alone.

  Returns:
    Whether it took effect.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return False
  # Threads' own arenas pass large buffers to mmap whatever the threshold.
  settings = {
      _M_ARENA_MAX: 1,
      _M_MMAP_THRESHOLD: _KEPT_BYTES,
      _M_TRIM_THRESHOLD: _KEPT_BYTES,
  }
  refused = [
      name for name, value in settings.items() if not mallopt(name, value)
  ]
  return not refused
