"""METHOD of the gin files: which method is trained, and its own sizes."""

import dataclasses

from xprompt_jax.methods import p_tuning
from xprompt_jax.methods.fine_tuning import FineTuning
from xprompt_jax.methods.p_tuning import PTuning
from xprompt_jax.methods.p_tuning_v2 import PTuningV2
from xprompt_jax.methods.prefix_tuning import PrefixTuning
from xprompt_jax.methods.protocol import Baseline
from xprompt_jax.types import require, require_int

PROMPT_TUNING = "prompt_tuning"
NAMES = (
    PROMPT_TUNING,
    "fine_tuning",
    "prefix_tuning",
    "p_tuning",
    "p_tuning_v2",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
  """What is trained.

  Attributes:
    name: `prompt_tuning`, which the search goes on from, or a baseline:
      `fine_tuning`, `prefix_tuning`, `p_tuning`, `p_tuning_v2`.
    mid_dim: of `prefix_tuning`: width inside its MLP.
    prompt_encoder: of `p_tuning`: `lstm` or `mlp`.
  """

  name: str = PROMPT_TUNING
  mid_dim: int = 512
  prompt_encoder: str = "lstm"

  def __post_init__(self):
    expected = f"one of {', '.join(NAMES)}"
    require(self.name in NAMES, "METHOD", self.name, expected)
    require_int("MethodConfig.mid_dim", self.mid_dim, 1)
    require(
        self.prompt_encoder in p_tuning.ENCODERS,
        "MethodConfig.prompt_encoder",
        self.prompt_encoder,
        f"one of {', '.join(p_tuning.ENCODERS)}",
    )


def build_baseline(config: MethodConfig, length: int) -> Baseline:
  """The baseline that a config names.

  Args:
    config: any but prompt tuning, which is no baseline.
    length: P of its prompt or prefix; fine-tuning has none.
  """
  if config.name == "fine_tuning":
    return FineTuning()
  if config.name == "prefix_tuning":
    return PrefixTuning(length=length, mid_dim=config.mid_dim)
  if config.name == "p_tuning":
    return PTuning(length=length, encoder=config.prompt_encoder)
  if config.name == "p_tuning_v2":
    return PTuningV2(length=length)
  raise ValueError(f"{config.name} is no baseline")
