"""P-tuning (Liu et al. 2021): a prompt encoder makes the input prompt.

A bidirectional LSTM of two layers and an MLP of two, or the MLP alone, run over
P embeddings. What comes out is an ordinary prompt [P, H], so the encoder is
folded away after training. The layers are those of the authors' SuperGLUE
program (`PT-Fewshot/pet/wrapper.py`): H units in each direction.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from xprompt_jax.methods import initialisers
from xprompt_jax.methods.protocol import Adapted, EqualRows
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config

ENCODERS = ("lstm", "mlp")
_LAYERS = ("layer_0", "layer_1")
_DIRECTIONS = ("forward", "backward")


def lstm(
    leaves: Mapping[str, Array],
    inputs: Float[Array, "P I"],
    reverse: bool = False,
) -> Float[Array, "P U"]:
  """One direction of one LSTM layer, from a state of zeros.

  Args:
    leaves: `input` [I, 4 U], `hidden` [U, 4 U], `input_bias` and `hidden_bias`
      [4 U], the gates in torch's order: input, forget, cell, output.
    inputs: [P, I].
    reverse: reads from the last position to the first.

  Returns:
    The hidden state at each position [P, U].
  """
  biases = leaves["input_bias"] + leaves["hidden_bias"]
  gates = inputs @ leaves["input"] + biases[None, :]

  def step(carry, from_input):
    hidden, cell = carry
    joined = from_input + hidden @ leaves["hidden"]
    i, f, g, o = jnp.split(joined, 4)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return (hidden, cell), hidden

  zeros = jnp.zeros(leaves["hidden"].shape[:1], inputs.dtype)
  return jax.lax.scan(step, (zeros, zeros), gates, reverse=reverse)[1]


def _start_lstm(key: Array, inputs: int, units: int) -> dict[str, Array]:
  """Uniform in +-1/sqrt(units), as `torch.nn.LSTM`."""
  shapes = {
      "input": (inputs, 4 * units),
      "hidden": (units, 4 * units),
      "input_bias": (4 * units,),
      "hidden_bias": (4 * units,),
  }
  keys = jax.random.split(key, len(shapes))
  return {
      name: initialisers.uniform(k, shape, units**-0.5)
      for k, (name, shape) in zip(keys, shapes.items(), strict=True)
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class PTuning(EqualRows):
  """A prompt that an encoder makes.

  Attributes:
    length: P, prompt tokens.
    encoder: `lstm`, with the MLP behind it, or `mlp` alone.
  """

  length: int
  encoder: str
  name: str = "p_tuning"
  makes_prompt: ClassVar[bool] = True

  def initial(self, key: Array, config: T5Config, frozen_params: Any) -> Any:
    """Embeddings [P, H] and the encoder's layers."""
    del frozen_params
    width = config.emb_dim
    keys = jax.random.split(key, 4)
    found: dict[str, Any] = {
        "embedding": initialisers.embedding(keys[0], self.length, width)
    }
    inputs = width
    if self.encoder == "lstm":
      layers = {}
      for i, layer in enumerate(_LAYERS):
        pair = jax.random.split(jax.random.fold_in(keys[1], i))
        layers[layer] = {
            direction: _start_lstm(k, inputs, width)
            for k, direction in zip(pair, _DIRECTIONS, strict=True)
        }
        inputs = 2 * width
      found["lstm"] = layers
    found["mlp"] = {
        "hidden": initialisers.dense(keys[2], inputs, width),
        "out": initialisers.dense(keys[3], width, width),
    }
    return found

  # Without jit, each call would compile the LSTM again.
  @functools.partial(jax.jit, static_argnums=0)
  def prompt(self, trained: Any) -> Float[Array, "P H"]:
    """Runs the encoder: what is left after folding."""
    x = trained["embedding"]
    if self.encoder == "lstm":
      for layer in _LAYERS:
        both = [
            lstm(trained["lstm"][layer][name], x, name == "backward")
            for name in _DIRECTIONS
        ]
        x = jnp.concatenate(both, axis=-1)  # [P, 2 H]
    mlp = trained["mlp"]
    x = jax.nn.relu(initialisers.apply_dense(mlp["hidden"], x))
    return initialisers.apply_dense(mlp["out"], x)

  def adapt(
      self,
      trained: Any,
      constants: Any,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """The encoder's output is the prompt, nothing of it masked."""
    del constants, model
    return Adapted(
        params=frozen_params,
        prompt=self.prompt(trained),
        visible=jnp.ones((self.length,), bool),
    )

  def trained_parameters(self, config: T5Config) -> int:
    """P x H embeddings, the LSTM's 4 H (I + H + 2) a direction, the MLP."""
    width = config.emb_dim
    total, inputs = self.length * width, width
    if self.encoder == "lstm":
      for _ in _LAYERS:
        total += 2 * 4 * width * (inputs + width + 2)
        inputs = 2 * width
    return total + (inputs + 1) * width + (width + 1) * width

  def inference_parameters(self, config: T5Config) -> int:
    """P x H: the prompt."""
    return self.length * config.emb_dim
