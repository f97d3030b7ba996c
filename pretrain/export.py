"""Turns a pre-training state into a bundled checkpoint.

    python -m pretrain.export --workdir runs/pretrain
    python -m pretrain.export --workdir runs/pretrain_small --model bundled_small

Weights are rounded to bfloat16. `pretrain/check.py` says what is left of the
accuracy after that.
"""

import pathlib

import ml_dtypes

from pretrain import train
from xprompt_jax import artifacts
from xprompt_jax.t5.network import T5
from xprompt_jax.weights import bundled, checkpoints


def read_state(workdir: pathlib.Path, model: str) -> tuple[int, dict]:
  """The step and the parameters of a saved state."""
  t5 = T5(bundled.bundled_config(model))
  params = train.initial_params(t5)
  like = (params, train.make_optimizer(model).init(params))
  step, (params, _) = train.load_state(workdir / "state.safetensors", like)
  return step, params


def main() -> None:
  """Writes the model's `model.safetensors`."""
  args = train.arguments(__doc__)
  step, params = read_state(args.workdir, args.model)
  arrays = {
      name: leaf.astype(ml_dtypes.bfloat16)
      for name, leaf in train.flat_names(params).items()
  }
  folder = checkpoints.BUNDLED_MODELS[args.model]
  path = folder / checkpoints.WEIGHTS_FILE
  artifacts.save_arrays(path, arrays)
  size = sum(leaf.size for leaf in arrays.values())
  print(f"{path}: step {step}, {size} parameters, {path.stat().st_size} bytes")


if __name__ == "__main__":
  main()
