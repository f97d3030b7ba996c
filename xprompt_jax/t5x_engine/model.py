"""T5X's encoder-decoder model with a prompt: what gin files name as MODEL."""

from typing import Any

from flax import linen as nn
from t5x import models

from xprompt_jax.t5x_engine import network
from xprompt_jax.t5x_engine.starting import StartingPrompt
from xprompt_jax.types import UserError


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

  def get_initial_variables(self, *args: Any, **kwargs: Any) -> Any:
    """As T5X's.

    Raises:
      UserError: the vocabulary is that of another model.
    """
    _check_vocabulary(self.output_vocabulary, self.module.config.vocab_size)
    return super().get_initial_variables(*args, **kwargs)


def _check_vocabulary(vocabulary: Any, num_embeddings: int) -> None:
  """A task with T5's pieces would train mT5 or ByT5 on meaningless ids.

  Embeddings are a few more than ids, for the mesh; T5 itself has 32,128 of 32,100.
  """
  size = getattr(vocabulary, "vocab_size", None)
  if size is not None and not size <= num_embeddings < 2 * size:
    raise UserError(
        f"VOCABULARY: found {size} ids, of the task, and {num_embeddings}"
        " embeddings, of the network, expected a task with the model's own"
        " vocabulary"
    )
