"""Turns a pre-training state into the bundled checkpoint.

    python -m pretrain.export --workdir runs/pretrain

Weights are rounded to bfloat16. `pretrain/check.py` says what is left of the
accuracy after that.
"""

import argparse
import pathlib

import ml_dtypes

from pretrain import train
from xprompt_jax import artifacts
from xprompt_jax.t5.network import T5
from xprompt_jax.weights import bundled


def read_state(workdir: pathlib.Path) -> tuple[int, dict]:
  """The step and the parameters of a saved state."""
  t5 = T5(bundled.bundled_config())
  params = train.initial_params(t5)
  like = (params, train.make_optimizer().init(params))
  step, (params, _) = train.load_state(workdir / "state.safetensors", like)
  return step, params


def main() -> None:
  """Writes `xprompt_jax/bundled/model.safetensors`."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  step, params = read_state(parser.parse_args().workdir)
  arrays = {
      name: leaf.astype(ml_dtypes.bfloat16)
      for name, leaf in train.flat_names(params).items()
  }
  path = train.BUNDLED / "model.safetensors"
  artifacts.save_arrays(path, arrays)
  size = sum(leaf.size for leaf in arrays.values())
  print(f"{path}: step {step}, {size} parameters, {path.stat().st_size} bytes")


if __name__ == "__main__":
  main()
