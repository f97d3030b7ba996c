"""Where the keys and values of a prefix stand: in the parameter tree.

Prefix tuning and P-tuning v2 differ in how they make them. An attention takes
`prefix_key` and `prefix_value` [P, heads, head_dim] from its parameters, where
they are (`t5/layers.py`), so training, decoding and ranking need no other way
in.
"""

from collections.abc import Mapping
from typing import Any

from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from xprompt_jax.t5.config import T5Config

# By the part of the network that has one: its stack and its attention there.
PARTS = {
    "encoder": ("encoder", "attention"),
    "decoder": ("decoder", "self_attention"),
    "cross": ("decoder", "encoder_decoder_attention"),
}


def num_layers(config: T5Config, part: str) -> int:
  """Layers of the stack that a part belongs to."""
  stack, _ = PARTS[part]
  return (
      config.num_encoder_layers
      if stack == "encoder"
      else config.num_decoder_layers
  )


def with_prefix(
    params: Mapping,
    prefix: Mapping[str, Float[Array, "layers 2 P kv"]],
    config: T5Config,
) -> dict[str, Any]:
  """Parameters of a T5 with a prefix in every attention.

  Args:
    params: the frozen ones, which are not changed.
    prefix: for each of `PARTS`, the keys and the values of each layer, heads
      joined: [layers, 2, P, heads * head_dim].
    config: of the T5.

  Returns:
    A tree that shares its other leaves with `params`.
  """
  found = _copied(params)
  for part, (stack, attention) in PARTS.items():
    length = prefix[part].shape[2]
    # [layers, 2, P, kv] -> [layers, 2, P, heads, head_dim]
    shape = (-1, 2, length, config.num_heads, config.head_dim)
    for i, (key, value) in enumerate(jnp.reshape(prefix[part], shape)):
      where = found[stack][f"layers_{i}"][attention]
      where["prefix_key"], where["prefix_value"] = key, value
  return found


def _copied(tree: Any) -> Any:
  """The same leaves in dictionaries of their own."""
  if not isinstance(tree, Mapping):
    return tree
  return {name: _copied(value) for name, value in tree.items()}
