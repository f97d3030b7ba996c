"""Fills the frozen parameter tree, every leaf accounted for.

`checkpoints.py` says what the weights' names and shapes are and how a part of
one is read; this module compares them with the network, reads each leaf
straight to the devices that hold it, and takes its fingerprint. The host never
holds more than one leaf beside what its own devices keep.
"""

from collections.abc import Mapping
import functools
import hashlib
import math
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Sharding, SingleDeviceSharding
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import AnyArray, UserError, require
from xprompt_jax.weights import checkpoints
from xprompt_jax.weights.leaves import Checkpoint, Leaf

# Names printed of a tree that does not fit; the rest is counted.
_NAMES_SHOWN = 3
_DIGEST_BYTES = 32


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


def check_tree(checkpoint: Checkpoint, config: T5Config, source: str) -> None:
  """Refuses weights whose names or shapes are not the network's.

  Args:
    checkpoint: leaves by name; nothing of them is read.
    config: the network's sizes.
    source: the checkpoint, for the message.

  Raises:
    UserError: lists missing, unexpected and misshapen names.
  """
  shapes = parameter_shapes(config)
  found = {
      "missing": sorted(shapes.keys() - checkpoint.keys()),
      "unexpected": sorted(checkpoint.keys() - shapes.keys()),
      "misshapen": sorted(
          f"{n} {checkpoint[n].shape} for {shapes[n]}"
          for n in shapes.keys() & checkpoint.keys()
          if tuple(checkpoint[n].shape) != shapes[n]
      ),
  }
  problems = [f"{k}: {_listed(v)}" for k, v in found.items() if v]
  if problems:
    raise UserError(
        f"{source}: does not fit T5Config: {'; '.join(problems)}; expected its"
        f" {len(shapes)} parameters"
    )


def _converted(array: np.ndarray, leaf: Leaf, dtype: Any) -> np.ndarray:
  array = np.asarray(array, order="C").astype(dtype, copy=False)
  if not np.isfinite(array).all():
    raise UserError(
        f"{leaf.file}: {leaf.tensor}: found NaN or infinity, expected finite"
        f" numbers in {np.dtype(dtype).name}"
    )
  return array


def _place(
    leaf: Leaf, dtype: Any, sharding: Sharding, take_digest: bool
) -> tuple[jax.Array, bytes]:
  """One leaf where it belongs, and the sha256 of its contents if wanted."""
  parts: dict[tuple, np.ndarray] = {}
  digest = b""
  if take_digest:
    whole = _converted(leaf.whole(), leaf, dtype)
    # bfloat16 is no buffer of Python's.
    digest = hashlib.sha256(whole.reshape(-1).view(np.uint8).data).digest()

  def part(index: tuple[slice, ...] | None) -> np.ndarray:
    index = index or ()
    if take_digest:
      return whole[index]
    # Devices that hold copies of the same part ask for it one by one.
    key = tuple((s.start, s.stop) for s in index)
    if key not in parts:
      parts[key] = _converted(leaf.read(index), leaf, dtype)
    return parts[key]

  array = jax.make_array_from_callback(leaf.shape, sharding, part)
  # The next leaf is read when this one has left the host's buffers.
  return array.block_until_ready(), digest


def _all_digests(digests: Mapping[str, bytes]) -> dict[str, bytes]:
  """Those that every process has taken, on every process."""
  if jax.process_count() == 1:
    return dict(digests)
  names = sorted(digests)
  own = np.frombuffer(
      b"".join(digests[name].ljust(_DIGEST_BYTES, b"\0") for name in names),
      np.uint8,
  ).reshape(len(names), _DIGEST_BYTES)
  # A leaf's digest is zero on all processes but one.
  summed = multihost_utils.process_allgather(own).max(axis=0)
  return {n: summed[i].tobytes() for i, n in enumerate(names)}


def _fingerprint(
    digests: Mapping[str, bytes], shapes: Mapping[str, tuple], dtype: str
) -> str:
  total = hashlib.sha256()
  for name in sorted(digests):
    total.update(f"{name}:{dtype}:{tuple(shapes[name])}:".encode())
    total.update(digests[name])
  return total.hexdigest()


def fingerprint(params: Any) -> str:
  """sha256 over names, dtypes, shapes and contents of a parameter tree.

  It is the sha256 of those of the leaves, in the order of their names, so it
  depends neither on how a tree is spread over devices nor on where it came
  from.
  """
  flat = traverse_util.flatten_dict(params, sep="/")
  digests = {}
  for name, leaf in flat.items():
    digests[name] = hashlib.sha256(_on_host(leaf).tobytes()).digest()
  dtype = str(next(iter(flat.values())).dtype)
  return _fingerprint(digests, {n: a.shape for n, a in flat.items()}, dtype)


def _on_host(leaf: AnyArray) -> np.ndarray:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    leaf = multihost_utils.process_allgather(leaf, tiled=True)
  return np.asarray(leaf)


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


def _reading_order(leaves: Checkpoint) -> list[str]:
  """File by file, as readers ask; what is large while there is most room."""
  largest: dict[str, int] = {}
  for leaf in leaves.values():
    size = math.prod(leaf.shape)
    largest[leaf.file] = max(size, largest.get(leaf.file, 0))

  def key(name: str) -> tuple:
    leaf = leaves[name]
    return -largest[leaf.file], leaf.file, -math.prod(leaf.shape), name

  return sorted(leaves, key=key)


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
    return Frozen(params, fingerprint(params))
  leaves = checkpoints.open_checkpoint(checkpoint, config)
  check_tree(leaves, config, checkpoint)
  places = (
      dict.fromkeys(leaves, SingleDeviceSharding(jax.local_devices()[0]))
      if shardings is None
      else traverse_util.flatten_dict(shardings, sep="/")
  )
  arrays, digests = {}, {}
  for i, name in enumerate(_reading_order(leaves)):
    mine = i % jax.process_count() == jax.process_index()
    arrays[name], digests[name] = _place(
        leaves[name], dtype, places[name], take_digest=mine
    )
  shapes = {name: leaf.shape for name, leaf in leaves.items()}
  return Frozen(
      traverse_util.unflatten_dict(arrays, sep="/"),
      _fingerprint(_all_digests(digests), shapes, dtype),
  )
