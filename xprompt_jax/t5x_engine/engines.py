"""T5X's trainers of one experiment, which all of its tables share.

A trainer compiles its step for each bucket of input lengths. Kept from table to
table, it does so once; and the frozen weights are given to T5X once.
"""

from collections.abc import Mapping
import contextlib
import dataclasses

from jax.sharding import Mesh

from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5x_engine.frozen_weights import FrozenWeights, place_weights
from xprompt_jax.t5x_engine.one_prompt import OnePrompt


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Engines:
  """T5X's trainers by prompt length.

  Attributes:
    model: the prompted T5.
    frozen_params: its parameters.
    optimizer: of the prompts.
    z_loss: weight of T5X's z-loss.
    mesh: devices to spread examples over; None uses one.
  """

  model: PromptedT5
  frozen_params: Mapping
  optimizer: OptimizerConfig
  z_loss: float = 0.0
  mesh: Mesh | None = None
  _made: dict[tuple[int, int], OnePrompt] = dataclasses.field(
      default_factory=dict, init=False, repr=False
  )
  _placed: list[FrozenWeights] = dataclasses.field(
      default_factory=list, init=False, repr=False
  )

  def of(self, length: int, num_pieces: int) -> OnePrompt:
    """The trainer of prompts of P tokens and K pieces."""
    config = self.model.t5_config
    key = (length, num_pieces)
    if key not in self._made:
      if not self._placed:
        self._placed.append(
            place_weights(config, self.frozen_params, self.mesh)
        )
      self._made[key] = OnePrompt(
          prompt=PromptConfig(
              length=length,
              num_pieces=num_pieces,
              init="random_uniform",
              pruned_tokens=self.model.pruned_tokens,
          ),
          model=config,
          optimizer=self.optimizer,
          z_loss=self.z_loss,
          weights=self._placed[0],
      )
    return self._made[key]

  def close(self) -> None:
    """Ends all of them; those of one that fails as well."""
    with contextlib.ExitStack() as stack:
      for one in self._made.values():
        stack.callback(one.close)
      self._made.clear()
      self._placed.clear()
