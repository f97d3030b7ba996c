"""Python on four forced CPU devices, in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any


def run(script: str) -> Any:
  """Runs a script, and returns the JSON that it prints."""
  environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
  }
  done = subprocess.run(
      [sys.executable, "-c", script],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
