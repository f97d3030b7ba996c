"""Prompt tuning (Lester et al. 2021), and XPrompt's retraining behind masks.

A row trains its prompt [P, H]; its masks are constants. The search starts its
tables itself (`stages.py`), so there is no `initial` here.
"""

from collections.abc import Mapping
import dataclasses

import jax
from jax import Array

from xprompt_jax import masks as masks_lib
from xprompt_jax.methods.protocol import Adapted
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import PromptMasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTuning:
  """A masked prompt in front of the embedded input.

  Attributes:
    length: P; only the counts need it.
  """

  length: int = 20
  name: str = "prompt_tuning"

  def adapt(
      self,
      trained: Mapping[str, Array],
      constants: PromptMasks,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """Multiplies `prompt` [P, H] by the row's masks [P] and [P, K]."""
    visible = model.prompt_visible(jax.tree.map(lambda x: x[None], constants))
    return Adapted(
        params=frozen_params,
        prompt=masks_lib.apply_masks(trained["prompt"], constants),
        visible=visible[0],
    )

  def present(self, constants: PromptMasks) -> Array | None:
    """[R, P] where the table holds shorter prompts."""
    return constants.present

  def trained_parameters(self, config: T5Config) -> int:
    """P x H: 20 x 2048 = 40,960 for T5-XL."""
    return self.length * config.emb_dim

  def inference_parameters(self, config: T5Config) -> int:
    """The same prompt."""
    return self.trained_parameters(config)
