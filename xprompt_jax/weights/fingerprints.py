"""What tells one frozen model from another: a sha256 over all of it.

It is the sha256 over the names, dtypes and shapes of the leaves, in the order of
their names, with the sha256 of each one's contents: it depends neither on how a
tree is spread over devices and hosts nor on the format it came from.
"""

from collections.abc import Iterable, Mapping
import hashlib
from typing import Any, NamedTuple

from flax import traverse_util
import jax
from jax import Array
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jaxtyping import UInt32
import numpy as np

from xprompt_jax.types import AnyArray, UserError

_SHA_BYTES = 32
_SUM_BYTES = 4


class Digest(NamedTuple):
  """What identifies the contents of one leaf.

  Attributes:
    sha256: over its bytes in C order.
    bit_sum: the sum of its words, modulo 2**32: the same whatever the order, so
      that devices can compute it together.
  """

  sha256: bytes
  bit_sum: int


def digest_of(parts: Iterable[np.ndarray]) -> Digest:
  """The digest of a leaf.

  Args:
    parts: its contents, one after another along the first axis.
  """
  sha, total = hashlib.sha256(), 0
  for part in parts:
    flat = np.ascontiguousarray(part).reshape(-1)
    # bfloat16 is no buffer of Python's.
    sha.update(flat.view(np.uint8).data)
    words = flat.view(f"u{flat.dtype.itemsize}")
    total += int(words.sum(dtype=np.uint64))
  return Digest(sha.digest(), total % 2 ** (8 * _SUM_BYTES))


@jax.jit
def _device_bit_sum(leaf: Array) -> UInt32[Array, ""]:
  word = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  words = jax.lax.bitcast_convert_type(leaf, word)
  return jnp.sum(words.astype(jnp.uint32), dtype=jnp.uint32)


def combined(
    digests: Mapping[str, Digest],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
) -> str:
  """The fingerprint of leaves whose digests were taken.

  Args:
    digests: by name.
    shapes: likewise.
    dtype: theirs.
  """
  total = hashlib.sha256()
  for name in sorted(digests):
    total.update(f"{name}:{dtype}:{tuple(shapes[name])}:".encode())
    total.update(digests[name].sha256)
  return total.hexdigest()


def of_params(params: Any) -> str:
  """The fingerprint of a parameter tree, read from where it is."""
  flat = traverse_util.flatten_dict(params, sep="/")
  digests = {name: digest_of([_on_host(leaf)]) for name, leaf in flat.items()}
  dtype = str(next(iter(flat.values())).dtype)
  return combined(digests, {n: a.shape for n, a in flat.items()}, dtype)


def _on_host(leaf: AnyArray) -> np.ndarray:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    leaf = multihost_utils.process_allgather(leaf, tiled=True)
  return np.asarray(leaf)


def of_all_hosts(
    own: Mapping[str, Digest], arrays: Mapping[str, Array]
) -> dict[str, Digest]:
  """Brings the digests together that each host has taken of its own leaves.

  A digest is taken of one host's file, while the devices of the others hold
  what those have read: their sum has to be that of the digest.

  Args:
    own: by name; each leaf is in that of one host.
    arrays: all leaves, as they lie on the devices.

  Returns:
    The digests of all leaves.

  Raises:
    UserError: the hosts have read different contents.
  """
  names = sorted(arrays)
  packed = b"".join(
      own[name].sha256 + own[name].bit_sum.to_bytes(_SUM_BYTES, "little")
      if name in own
      else bytes(_SHA_BYTES + _SUM_BYTES)
      for name in names
  )
  table = np.frombuffer(packed, np.uint8).reshape(len(names), -1)
  # All hosts but one have zeros in a leaf's line.
  table = multihost_utils.process_allgather(table).max(axis=0)
  found = {}
  for name, line in zip(names, table, strict=True):
    bit_sum = int.from_bytes(line[_SHA_BYTES:].tobytes(), "little")
    if bit_sum != int(_device_bit_sum(arrays[name])):
      raise UserError(
          f"CHECKPOINT: {name}: found other contents on some hosts, expected"
          " the same checkpoint on every host"
      )
    found[name] = Digest(line[:_SHA_BYTES].tobytes(), bit_sum)
  return found
