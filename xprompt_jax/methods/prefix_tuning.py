"""Prefix tuning (Li and Liang 2021): keys and values in front of every layer's.

Encoder self-attention, decoder self-attention and cross-attention have a prefix
each, made by an MLP from an embedding [P, H]. The MLP makes training stable
(their section 4.3) and is folded away: inference needs the keys and values.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from xprompt_jax.methods import initialisers, parameter_counts, prefixes
from xprompt_jax.methods.protocol import Adapted, EqualRows, no_prompt
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixTuning(EqualRows):
  """A reparametrised prefix.

  Attributes:
    length: P, positions of the prefix.
    mid_dim: width inside the MLP.
  """

  length: int
  mid_dim: int
  name: str = "prefix_tuning"

  def initial(self, key: Array, config: T5Config, frozen_params: Any) -> Any:
    """An embedding and two dense layers for each part of the network."""
    del frozen_params
    width = parameter_counts.attention_width(config)
    found = {}
    for i, part in enumerate(prefixes.PARTS):
      keys = jax.random.split(jax.random.fold_in(key, i), 3)
      outputs = 2 * prefixes.num_layers(config, part) * width
      found[part] = {
          "embedding": initialisers.embedding(
              keys[0], self.length, config.emb_dim
          ),
          "hidden": initialisers.dense(keys[1], config.emb_dim, self.mid_dim),
          "out": initialisers.dense(keys[2], self.mid_dim, outputs),
      }
    return found

  def adapt(
      self,
      trained: Any,
      constants: Any,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """Runs the MLPs: [P, H] -> [layers, 2, P, heads * head_dim] a part."""
    del constants
    made = {}
    for part in prefixes.PARTS:
      leaves = trained[part]
      hidden = jnp.tanh(
          initialisers.apply_dense(leaves["hidden"], leaves["embedding"])
      )
      flat = initialisers.apply_dense(leaves["out"], hidden)
      layers = prefixes.num_layers(model.t5_config, part)
      # [P, layers * 2 * kv] -> [P, layers, 2, kv] -> [layers, 2, P, kv]
      made[part] = flat.reshape(self.length, layers, 2, -1).transpose(
          1, 2, 0, 3
      )
    return Adapted(
        params=prefixes.with_prefix(frozen_params, made, model.t5_config),
        **no_prompt(model.t5_config),
    )

  def trained_parameters(self, config: T5Config) -> int:
    """Three embeddings, and MLPs with biases."""
    embedding = self.length * config.emb_dim
    hidden = (config.emb_dim + 1) * self.mid_dim
    outputs = 2 * parameter_counts.attention_width(config)
    outputs *= parameter_counts.num_attentions(config)
    parts = len(prefixes.PARTS)
    return parts * (embedding + hidden) + (self.mid_dim + 1) * outputs

  def inference_parameters(self, config: T5Config) -> int:
    """The keys and values alone."""
    return parameter_counts.of_prefix(config, self.length)
