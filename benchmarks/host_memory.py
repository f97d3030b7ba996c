"""Scoring long inputs on a CPU, with freed memory kept and without.

    .venv/bin/python -m benchmarks.host_memory

Each side runs in a process of its own, in turns; the ratio of the medians is
printed, with the page faults that it comes from.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

_REPEATS = 3
_BATCHES = 4
_BATCH_SIZE = 16
_INPUTS_LENGTH = 512


def measure() -> dict[str, float]:
  """Seconds and page faults of scoring a split, compilation left out."""
  from tests import examples
  from xprompt_jax import masks as masks_lib
  from xprompt_jax import scoring
  from xprompt_jax.tables import TableRows

  model, params = examples.bundled_model()
  ids = np.arange(_INPUTS_LENGTH) % 100 + 40
  split = examples.make_split(
      [ids] * (_BATCHES * _BATCH_SIZE), [[40, 1]] * (_BATCHES * _BATCH_SIZE)
  )
  rows = TableRows(
      seeds=(0,), splits=(split,), buckets=(_INPUTS_LENGTH,), targets_length=4
  )
  prompt = np.asarray(examples.random_prompt(1, 20, 128))

  def score() -> None:
    scoring.score_table(
        prompt,
        masks_lib.full_masks(1, 20, 16),
        rows,
        model=model,
        frozen_params=params,
        batch_size=_BATCH_SIZE,
    )

  score()
  faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  started = time.perf_counter()
  score()
  return {
      "seconds": time.perf_counter() - started,
      "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults,
  }


def in_new_process(side: str) -> dict[str, float]:
  """The measurement of one side."""
  command = [sys.executable, "-m", "benchmarks.host_memory", side]
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  """Measures one side, or both in turns."""
  if sys.argv[1:]:
    if sys.argv[1] == "kept":
      from xprompt_jax import host_memory

      host_memory.keep_freed_memory()
    print(json.dumps(measure()))
    return
  sides = ("returned", "kept")
  found = [
      {side: in_new_process(side) for side in sides} for _ in range(_REPEATS)
  ]
  medians = {
      side: {
          key: statistics.median(one[side][key] for one in found)
          for key in ("seconds", "faults")
      }
      for side in sides
  }
  for side, values in medians.items():
    print(f"{side}: {values['seconds']:.2f} s, {values['faults']:,.0f} faults")
  print(
      f"ratio {medians['returned']['seconds'] / medians['kept']['seconds']:.2f}"
  )


if __name__ == "__main__":
  main()
