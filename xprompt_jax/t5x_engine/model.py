"""T5X's encoder-decoder model with a prompt: what gin files name as MODEL."""

from typing import Any

from flax import linen as nn
from t5x import models

from xprompt_jax.t5x_engine import network
from xprompt_jax.t5x_engine.starting import StartingPrompt


class PromptedEncoderDecoderModel(models.EncoderDecoderModel):
  """`t5x.models.EncoderDecoderModel` behind a masked prompt.

  Training, scores, greedy and beam search are T5X's own: its network sees the
  prompt, the model around it does not. `FEATURE_CONVERTER_CLS` and all other
  arguments are as there.

  Args:
    module: a network of T5X, without a prompt.
    start: the prompt's size, and where it and its masks start.
    **kwargs: of `t5x.models.EncoderDecoderModel`.

  Raises:
    UserError: a module that is no encoder-decoder of T5X.
  """

  def __init__(self, module: nn.Module, start: StartingPrompt, **kwargs: Any):
    super().__init__(module=network.with_prompt(module, start), **kwargs)
