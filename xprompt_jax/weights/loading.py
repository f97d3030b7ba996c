"""Fills the frozen parameter tree, every leaf accounted for.

`CHECKPOINT` is one of

    bundled      the small model that comes with the package
    random:SEED  random weights, for trying sizes and pipelines
    a path       safetensors with T5X's parameter names joined by '/', such
                 as `encoder/layers_0/attention/query/kernel`; a folder means
                 its `model.safetensors`
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError, require

WEIGHTS_FILE = "model.safetensors"
BUNDLED = pathlib.Path(__file__).parent.parent / "bundled"
# Names printed of a tree that does not fit; the rest is counted.
_NAMES_SHOWN = 3


def _init(config: T5Config, key: jax.Array) -> Any:
  tokens = jnp.zeros((1, 2), jnp.int32)
  return nn.unbox(T5(config).init(key, tokens, tokens))["params"]


def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
  """Name and shape of every parameter of a T5, nothing computed.

  Args:
    config: its sizes.

  Returns:
    Names joined by '/', such as `decoder/logits_dense/kernel`.
  """
  tree = jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))
  flat = traverse_util.flatten_dict(tree, sep="/")
  return {name: leaf.shape for name, leaf in flat.items()}


def _listed(names: list[str]) -> str:
  more = len(names) - _NAMES_SHOWN
  shown = ", ".join(names[:_NAMES_SHOWN])
  return f"{shown} and {more} more" if more > 0 else shown


def check_tree(
    arrays: Mapping[str, np.ndarray], config: T5Config, source: str
) -> None:
  """Refuses weights that do not fit the network leaf for leaf.

  Args:
    arrays: by name.
    config: the network's sizes.
    source: the file, for the message.

  Raises:
    UserError: lists missing, unexpected and misshapen names, and arrays that
      hold NaN or infinity.
  """
  shapes = parameter_shapes(config)
  common = shapes.keys() & arrays.keys()
  found = {
      "missing": sorted(shapes.keys() - arrays.keys()),
      "unexpected": sorted(arrays.keys() - shapes.keys()),
      "misshapen": sorted(
          f"{n} {arrays[n].shape} for {shapes[n]}"
          for n in common
          if arrays[n].shape != shapes[n]
      ),
      "not finite": sorted(
          n for n in common if not np.isfinite(arrays[n]).all()
      ),
  }
  problems = [f"{k}: {_listed(v)}" for k, v in found.items() if v]
  if problems:
    raise UserError(
        f"{source}: does not fit T5Config: {'; '.join(problems)}; expected its"
        f" {len(shapes)} parameters"
    )


def _read(path: pathlib.Path, config: T5Config) -> dict[str, np.ndarray]:
  file = path / WEIGHTS_FILE if path.is_dir() else path
  if not file.exists():
    file = file if file.suffix else file / WEIGHTS_FILE
    raise UserError(
        f"CHECKPOINT: {file} is missing, expected safetensors with T5X's"
        " parameter names, 'bundled' or 'random:SEED'"
    )
  arrays = artifacts.load_arrays(file)
  arrays = {n: a.astype(np.float32, copy=False) for n, a in arrays.items()}
  check_tree(arrays, config, str(file))
  return arrays


def load_frozen(checkpoint: str, config: T5Config) -> Any:
  """The frozen parameters of a T5.

  Args:
    checkpoint: `bundled`, `random:SEED` or a path; see the module's text.
    config: the network's sizes.

  Returns:
    A tree of float32 arrays in the host's memory, every leaf from the
    checkpoint.

  Raises:
    UserError: a missing or damaged file, or weights that do not fit.
  """
  name, _, seed = checkpoint.partition(":")
  if name == "random":
    require(
        seed.isascii() and seed.isdigit() and int(seed) < 2**32,
        "CHECKPOINT",
        checkpoint,
        "a seed below 2**32, as in 'random:0'",
    )
    init = jax.jit(_init, static_argnums=0)
    return jax.device_get(init(config, jax.random.key(int(seed))))
  path = BUNDLED if checkpoint == "bundled" else pathlib.Path(checkpoint)
  arrays = _read(path, config)
  return traverse_util.unflatten_dict(arrays, sep="/")


def fingerprint(params: Any) -> str:
  """sha256 over names, shapes and contents of a parameter tree."""
  flat = traverse_util.flatten_dict(params, sep="/")
  return artifacts.digest_arrays({k: np.asarray(v) for k, v in flat.items()})
