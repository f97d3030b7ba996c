"""How torch starts its layers, for baselines whose authors used it."""

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float


def embedding(key: Array, count: int, width: int) -> Float[Array, "P H"]:
  """Standard normal, as `torch.nn.Embedding`."""
  return jax.random.normal(key, (count, width), jnp.float32)


def dense(key: Array, inputs: int, outputs: int) -> dict[str, Array]:
  """Uniform in +-1/sqrt(inputs), bias too, as `torch.nn.Linear`."""
  bound = inputs**-0.5
  keys = jax.random.split(key)
  return {
      "kernel": uniform(keys[0], (inputs, outputs), bound),
      "bias": uniform(keys[1], (outputs,), bound),
  }


def uniform(key: Array, shape: tuple[int, ...], bound: float) -> Array:
  """Uniform in +-bound, float32."""
  return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def apply_dense(
    layer: dict[str, Array], x: Float[Array, "N I"]
) -> Float[Array, "N O"]:
  """A dense layer with bias: [N, I] -> [N, O]."""
  return x @ layer["kernel"] + layer["bias"][None, :]
