"""T5X's model of a native config, of which T5X sees the prompt's parameters alone.

The frozen weights reach the loss as what T5X calls mutable variables, and none
come back.
"""

import dataclasses
import functools
from typing import Any

from flax import core
import jax
import numpy as np
from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network as t5_network

from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import optimizer as optimizer_lib
from xprompt_jax.t5x_engine.model import PromptedEncoderDecoderModel
from xprompt_jax.t5x_engine.starting import StartingPrompt, shapes_alone

# No shape of a parameter depends on them.
INPUT_SHAPES = {
    "encoder_input_tokens": (1, 1),
    "decoder_input_tokens": (1, 1),
    "decoder_target_tokens": (1, 1),
}


def _network_of(config: T5Config) -> Any:
  """T5X's own network of these sizes, without a prompt.

  `examples/t5`, or unscanned `scalable_t5` where every layer has a position bias.
  """
  network = scalable_network if config.relpos_per_layer else t5_network
  own, theirs = (
      {field.name for field in dataclasses.fields(kind)}
      for kind in (T5Config, network.T5Config)
  )
  # T5X names sizes as they are named here.
  kwargs = {name: getattr(config, name) for name in own & theirs}
  kwargs["dtype"] = np.dtype(config.dtype)
  if config.relpos_per_layer:
    kwargs["scan_layers"] = False
  return network.Transformer(network.T5Config(**kwargs))


class PromptModel(PromptedEncoderDecoderModel):
  """A model of which T5X sees the prompt's parameters alone."""

  def get_initial_variables(self, *args: Any, **kwargs: Any) -> Any:
    """As T5X's, of the prompt and its masks."""
    variables = super().get_initial_variables(*args, **kwargs)
    return {
        name: {"encoder": {"prompt": tree["encoder"]["prompt"]}}
        for name, tree in variables.items()
    }

  def network_variables(self) -> Any:
    """Shapes and axes of all parameters, the prompt's among them."""
    initial = functools.partial(
        super().get_initial_variables, input_shapes=INPUT_SHAPES
    )
    with shapes_alone():
      return core.freeze(jax.eval_shape(initial, jax.random.PRNGKey(0)))

  def loss_fn(
      self, params: Any, batch: Any, dropout_rng: Any, flax_mutables: Any
  ) -> Any:
    """As T5X's; `flax_mutables` are the frozen parameters, and none change."""
    whole = dict(core.unfreeze(flax_mutables))
    whole["encoder"] = {**whole["encoder"], **params["encoder"]}
    loss, metrics = super().loss_fn(whole, batch, dropout_rng)
    return loss, (metrics, {})


def model_of(
    config: T5Config,
    prompt: PromptConfig,
    optimizer: OptimizerConfig | None = None,
    z_loss: float = 0.0,
) -> PromptModel:
  """T5X's model of a frozen network with a prompt in front.

  Args:
    config: the frozen network.
    prompt: length, pieces, and whether pruned tokens are hidden.
    optimizer: of the prompt; None where nothing is trained.
    z_loss: weight of T5X's z-loss.
  """
  return PromptModel(
      _network_of(config),
      StartingPrompt(config=prompt),
      input_vocabulary=None,
      output_vocabulary=None,
      optimizer_def=optimizer_lib.prompt_optimizer(optimizer),
      z_loss=z_loss,
      # The mean over target tokens, as `train_step.row_loss` has it.
      loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
  )
