"""From the arrays of T5X's trees to those of this network.

`examples/t5` has the network's own tree. `examples/scalable_t5` (umT5's) keeps
the heads of its attention kernels apart, [H, heads, head_dim], and, unless told
otherwise, the layers of each stack as one array with the layers at axis 1:
`encoder/encoder/mlp/wo/kernel`, [mlp_dim, layers, H].
"""

from collections.abc import Mapping
import dataclasses
import re

import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights.leaves import Checkpoint, Index, Leaf

# T5X's `param_scan_axis`, which nothing of its own changes.
LAYER_AXIS = 1

STACKED = re.compile(r"(encoder|decoder)/\1/(.+)")
_SPLIT_KERNEL = re.compile(r".*attention/(query|key|value|out)/kernel")


class _Kept:
  """The parts of one stacked array that its other layers may still ask for.

  Leaves are read layer by layer and array by array, and each layer is asked for
  the same parts. So what is kept at most is what the layer before was asked
  for, for all layers: nothing that this layer passed over, nothing once the
  last layer is being read, and nothing of another array.
  """

  def __init__(self):
    self.blocks: dict[tuple, np.ndarray] = {}
    self._owner: _Layers | None = None
    self._layer: int | None = None
    self._begun: set[int] = set()
    self._asked: set[tuple] = set()

  def ask(self, owner: "_Layers", layer: int, key: tuple) -> bool:
    """Notes what is being read; whether a later layer may want it too."""
    if owner is not self._owner or layer != self._layer:
      if owner is not self._owner or layer in self._begun:
        self._begun.clear()
        self._asked.clear()
      self.blocks = {k: b for k, b in self.blocks.items() if k in self._asked}
      self._asked.clear()
      self._owner, self._layer = owner, layer
      self._begun.add(layer)
    self._asked.add(key)
    return len(self._begun) < owner.count


class _Layers:
  """The layers of a stacked array.

  All of them lie in the same chunks, so a part is read for all layers at once
  and kept for the others: without, a chunk would be unpacked as often as there
  are layers.
  """

  def __init__(self, leaf: Leaf, kept: _Kept):
    self.count = leaf.shape[LAYER_AXIS]
    self._leaf = leaf
    self._kept = kept

  def leaf(self, layer: int) -> Leaf:
    shape = self._leaf.shape
    return dataclasses.replace(
        self._leaf,
        shape=shape[:LAYER_AXIS] + shape[LAYER_AXIS + 1 :],
        read=lambda index: self._read(layer, index),
    )

  def _read(self, layer: int, index: Index) -> np.ndarray:
    key = tuple((s.start, s.stop) for s in index)
    is_wanted = self._kept.ask(self, layer, key)
    block = self._kept.blocks.pop(key, None)
    if block is None:
      whole = (*index[:LAYER_AXIS], slice(None), *index[LAYER_AXIS:])
      block = self._leaf.read(whole)
    if is_wanted:
      self._kept.blocks[key] = block
    # A copy: a view would keep the other layers in memory.
    return np.take(block, layer, axis=LAYER_AXIS)


def _joined(leaf: Leaf, axis: int) -> Leaf:
  """Joins an axis with the one after it, as heads and head_dim are here."""
  inner = leaf.shape[axis + 1]
  size = leaf.shape[axis] * inner

  def read(index: Index) -> np.ndarray:
    start, stop, _ = index[axis].indices(size)
    first, last = start // inner, -(-stop // inner)
    outer = (slice(first, last), slice(None))
    block = leaf.read((*index[:axis], *outer, *index[axis + 1 :]))
    # [..., heads, head_dim, ...] -> [..., heads * head_dim, ...]
    shape = block.shape
    block = block.reshape(*shape[:axis], -1, *shape[axis + 2 :])
    part = slice(start - first * inner, stop - first * inner)
    return block[(slice(None),) * axis + (part,)]

  shape = (*leaf.shape[:axis], size, *leaf.shape[axis + 2 :])
  return dataclasses.replace(leaf, shape=shape, read=read)


def _plain(name: str, leaf: Leaf) -> Leaf:
  match = _SPLIT_KERNEL.fullmatch(name)
  if match is None or len(leaf.shape) != 3:
    return leaf
  return _joined(leaf, 0 if match.group(1) == "out" else 1)


def network_leaves(stored: Mapping[str, Leaf], config: T5Config) -> Checkpoint:
  """Gives the arrays of a T5X checkpoint the network's names and shapes.

  Args:
    stored: as in the checkpoint.
    config: says how many layers there are.

  Returns:
    Leaves by the network's names; those it does not have keep their own.

  Raises:
    UserError: a stacked array of another number of layers.
  """
  found: dict[str, Leaf] = {}
  kept = _Kept()
  for name, leaf in stored.items():
    match = STACKED.fullmatch(name)
    if match is None:
      parts = {name: _plain(name, leaf)}
    else:
      stack, rest = match.groups()
      count = getattr(config, f"num_{stack}_layers")
      if leaf.shape[LAYER_AXIS : LAYER_AXIS + 1] != (count,):
        raise UserError(
            f"{leaf.file}: {leaf.tensor}: found shape {leaf.shape}, expected"
            f" {count} layers at axis {LAYER_AXIS}"
        )
      layers = _Layers(leaf, kept)
      parts = {
          f"{stack}/layers_{i}/{rest}": _plain(rest, layers.leaf(i))
          for i in range(count)
      }
    twice = parts.keys() & found.keys()
    if twice:
      raise UserError(
          f"{leaf.file}: found {min(twice)} stacked and by itself, expected one"
      )
    found.update(parts)
  return found


def config_of(shapes: Mapping[str, tuple[int, ...]], source: str) -> T5Config:
  """Tells a network's sizes from the names and shapes of T5X's parameters.

  Args:
    shapes: by name, as in the checkpoint, stacked or not.
    source: the checkpoint, for messages.

  Raises:
    UserError: a parameter that shows a size is missing or of another rank.
  """

  def shape(pattern: str, *ranks: int) -> tuple[int, ...]:
    """The shape of the first parameter of that name, of its first layer."""
    for name in sorted(shapes):
      if re.fullmatch(pattern, name):
        found = shapes[name]
        if STACKED.fullmatch(name):
          found = found[:LAYER_AXIS] + found[LAYER_AXIS + 1 :]
        if len(found) in ranks:
          return found
        raise UserError(
            f"{source}: {name}: found shape {shapes[name]}, expected a T5's"
        )
    raise UserError(f"{source}: found no {pattern}, expected the names of a T5")

  def layers(stack: str) -> int:
    for name, found in shapes.items():
      if re.match(f"{stack}/{stack}/", name) and len(found) > LAYER_AXIS:
        return found[LAYER_AXIS]
    matches = [re.match(rf"{stack}/layers_(\d+)/", name) for name in shapes]
    return 1 + max((int(m.group(1)) for m in matches if m), default=-1)

  layer = "encoder/(encoder|layers_0)"
  vocab_size, emb_dim = shape("token_embedder/embedding", 2)
  # [heads, buckets]
  num_heads, buckets = shape("encoder/(.*/)?relpos_bias/rel_embedding", 2)
  # [H, heads * head_dim] or [H, heads, head_dim]
  query = shape(f"{layer}/attention/query/kernel", 2, 3)
  gated = any(re.fullmatch(f"{layer}/mlp/wi_0/kernel", name) for name in shapes)
  _, mlp_dim = shape(f"{layer}/mlp/{'wi_0' if gated else 'wi'}/kernel", 2)
  return T5Config(
      vocab_size=vocab_size,
      emb_dim=emb_dim,
      num_heads=num_heads,
      head_dim=query[-1] // (num_heads if len(query) == 2 else 1),
      num_encoder_layers=layers("encoder"),
      num_decoder_layers=layers("decoder"),
      mlp_dim=mlp_dim,
      mlp_activations=("gelu", "linear") if gated else ("relu",),
      logits_via_embedding="decoder/logits_dense/kernel" not in shapes,
      relpos_num_buckets=buckets,
      relpos_per_layer="encoder/relpos_bias/rel_embedding" not in shapes,
  )
