"""Python on four forced CPU devices, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any


def run(*arguments: str) -> Any:
  """Runs Python with arguments, and returns the JSON in its last line."""
  environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
  }
  done = subprocess.run(
      [sys.executable, *arguments],
      cwd=pathlib.Path(__file__).parent.parent,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])
