"""Fills the frozen parameter tree, every leaf accounted for.

`checkpoints.py` says what the weights' names and shapes are and how a part of
one is read; this module compares them with the network, reads each leaf
straight to the devices that hold it, and takes its fingerprint. The host never
holds more than one leaf beside what its own devices keep.
"""

from collections.abc import Iterable, Iterator, Mapping
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import Sharding, SingleDeviceSharding
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError, require
from xprompt_jax.weights import (
    checkpoints,
    fingerprints,
    huggingface,
    leaves,
)
from xprompt_jax.weights.fingerprints import Digest
from xprompt_jax.weights.leaves import Checkpoint, Index, Leaf

# Names printed of a tree that does not fit; the rest is counted.
_NAMES_SHOWN = 3
# 64 MB in float32.
_BLOCK_NUMBERS = 2**24


class Frozen(NamedTuple):
  """The frozen parameters of a T5, loaded.

  Attributes:
    params: a tree of arrays, where they belong.
    fingerprint: sha256 over their names, dtypes, shapes and contents.
  """

  params: Any
  fingerprint: str


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
  return dict(_parameter_shapes(config))


@functools.lru_cache(maxsize=8)
def _parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
  tree = jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))
  flat = traverse_util.flatten_dict(tree, sep="/")
  return {name: leaf.shape for name, leaf in flat.items()}


def default_dtype() -> str:
  """What weights are kept in: bfloat16 on accelerators, float32 on CPUs."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def _listed(names: list[str]) -> str:
  more = len(names) - _NAMES_SHOWN
  shown = ", ".join(names[:_NAMES_SHOWN])
  return f"{shown} and {more} more" if more > 0 else shown


def _described(name: str, leaf: Leaf) -> str:
  """A parameter, with what its file calls it where that is another name."""
  return name if leaf.tensor == name else f"{name} ({leaf.file}: {leaf.tensor})"


def _missing(
    missing: Iterable[str], opened: Checkpoint, config: T5Config
) -> list[str]:
  """Parameters, with what a file of transformers would call them."""
  theirs = {o: t for t, o in huggingface.tensor_names(config).items()}
  known = set(theirs.values())
  if not any(leaf.tensor in known for leaf in opened.values()):
    return sorted(missing)
  return sorted(f"{n} ({theirs[n]})" for n in missing)


def check_tree(opened: Checkpoint, config: T5Config, source: str) -> None:
  """Refuses weights whose names or shapes are not the network's.

  Args:
    opened: leaves by name; nothing of them is read.
    config: the network's sizes.
    source: the checkpoint, for the message.

  Raises:
    UserError: lists missing, unexpected and misshapen names.
  """
  shapes = parameter_shapes(config)
  missing, unexpected = shapes.keys() - opened.keys(), opened.keys() - shapes
  found = {
      "missing": _missing(missing, opened, config) if missing else [],
      "unexpected": sorted(_described(n, opened[n]) for n in unexpected),
      "misshapen": sorted(
          f"{_described(n, opened[n])} {tuple(opened[n].shape)} for {shapes[n]}"
          for n in shapes.keys() & opened.keys()
          if tuple(opened[n].shape) != shapes[n]
      ),
  }
  problems = [f"{k}: {_listed(v)}" for k, v in found.items() if v]
  if problems:
    raise UserError(
        f"{source}: does not fit T5Config: {'; '.join(problems)}; expected its"
        f" {len(shapes)} parameters"
    )


def _converted(array: np.ndarray, leaf: Leaf, dtype: Any) -> np.ndarray:
  """In another dtype, and checked; in parts, which need little memory."""
  array = np.ascontiguousarray(array)
  same = array.dtype == np.dtype(dtype)
  result = array if same else np.empty(array.shape, dtype)
  for rows in _row_blocks(array.shape):
    if not same:
      result[rows] = array[rows].astype(dtype)
    if not np.isfinite(result[rows]).all():
      raise UserError(
          f"{leaf.file}: {leaf.tensor}: found NaN or infinity, expected finite"
          f" numbers in {np.dtype(dtype).name}"
      )
  return result


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
  """Slices of the first axis that are read or converted together."""
  rows = max(1, _BLOCK_NUMBERS // max(1, math.prod(shape[1:])))
  for start in range(0, shape[0], rows):
    yield slice(start, min(start + rows, shape[0]))


def _place_whole(leaf: Leaf, dtype: Any, sharding: Sharding):
  """One leaf where it belongs, and its digest; it is read once."""
  whole = _converted(leaf.whole(), leaf, dtype)
  digest = fingerprints.digest_of([whole])

  def part(index: Index | None) -> np.ndarray:
    return whole[index or ()]

  array = jax.make_array_from_callback(leaf.shape, sharding, part)
  # The next leaf is read when this one has left the host's buffers.
  return array.block_until_ready(), digest


def _place_parts(leaf: Leaf, dtype: Any, sharding: Sharding) -> jax.Array:
  """One leaf where it belongs; only what this host's devices hold is read."""
  parts: dict[tuple, np.ndarray] = {}

  def part(index: Index | None) -> np.ndarray:
    # Devices that hold copies of the same part ask for it one by one.
    index = index or ()
    key = tuple((s.start, s.stop) for s in index)
    if key not in parts:
      parts[key] = _converted(leaf.read(index), leaf, dtype)
    return parts[key]

  array = jax.make_array_from_callback(leaf.shape, sharding, part)
  return array.block_until_ready()


def _digest_in_blocks(leaf: Leaf, dtype: Any) -> Digest:
  rest = (slice(None),) * (len(leaf.shape) - 1)
  return fingerprints.digest_of(
      _converted(leaf.read((rows, *rest)), leaf, dtype)
      for rows in _row_blocks(leaf.shape)
  )


def _load(
    opened: Checkpoint, dtype: str, places: Mapping[str, Sharding]
) -> tuple[dict[str, jax.Array], dict[str, Digest]]:
  """All leaves where they belong, and their digests."""
  arrays, digests = {}, {}
  order = leaves.reading_order(opened)
  if jax.process_count() == 1:
    for name in order:
      arrays[name], digests[name] = _place_whole(
          opened[name], dtype, places[name]
      )
    return arrays, digests
  # Each host reads its share, and takes the digests of some stored arrays.
  stored = dict.fromkeys((opened[n].file, opened[n].tensor) for n in order)
  owner = {key: i % jax.process_count() for i, key in enumerate(stored)}
  for name in order:
    leaf = opened[name]
    arrays[name] = _place_parts(leaf, dtype, places[name])
    if owner[leaf.file, leaf.tensor] == jax.process_index():
      digests[name] = _digest_in_blocks(leaf, dtype)
  return arrays, fingerprints.of_all_hosts(digests, arrays)


def _random(checkpoint: str, config: T5Config, dtype: str, shardings: Any):
  seed = checkpoint.partition(":")[2]
  require(
      seed.isascii() and seed.isdigit() and int(seed) < 2**32,
      "CHECKPOINT",
      checkpoint,
      "a seed below 2**32, as in 'random:0'",
  )

  def init(key: jax.Array) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), _init(config, key))

  return jax.jit(init, out_shardings=shardings)(jax.random.key(int(seed)))


def load_frozen(
    checkpoint: str,
    config: T5Config,
    *,
    dtype: str = "float32",
    shardings: Any = None,
) -> Frozen:
  """Loads the frozen parameters of a T5.

  Args:
    checkpoint: `random:SEED`, or what `checkpoints.open_checkpoint` reads.
    config: the network's sizes.
    dtype: what they are kept in, float32 or bfloat16.
    shardings: a tree of shardings shaped like the parameters, from
      `partitioning.param_shardings`; None puts all on the first device.

  Returns:
    The parameters, every leaf from the checkpoint, and their fingerprint.

  Raises:
    UserError: a missing or damaged file, or weights that do not fit.
  """
  if checkpoint.partition(":")[0] == "random":
    params = _random(checkpoint, config, dtype, shardings)
    return Frozen(params, fingerprints.of_params(params))
  opened = checkpoints.open_checkpoint(checkpoint, config)
  check_tree(opened, config, checkpoint)
  places = (
      dict.fromkeys(opened, SingleDeviceSharding(jax.local_devices()[0]))
      if shardings is None
      else traverse_util.flatten_dict(shardings, sep="/")
  )
  arrays, digests = _load(opened, dtype, places)
  shapes = {name: leaf.shape for name, leaf in opened.items()}
  return Frozen(
      traverse_util.unflatten_dict(arrays, sep="/"),
      fingerprints.combined(digests, shapes, dtype),
  )
