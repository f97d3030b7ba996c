"""T5X's initialiser, which asks for shapes first and for values if it must.

A run that goes on from its own checkpoint asks for shapes alone, so nothing that
its prompt once started from need be there any more.
"""

from typing import Any

from t5x import utils

from xprompt_jax.t5x_engine import starting


class PromptInitializer(utils.TrainStateInitializer):
  """`t5x.utils.TrainStateInitializer`; files are read in `from_scratch` only."""

  def __init__(self, *args: Any, **kwargs: Any):
    """As T5X's."""
    with starting.shapes_alone():
      super().__init__(*args, **kwargs)
    initialize: Any = vars(self)["_initialize_train_state"]
    # Another function: JAX would take the first one's trace, which has zeros.
    self._initialize_train_state = lambda rng: initialize(rng)
