"""T5X's Adafactor over the prompt alone: what gin files name as OPTIMIZER.

The settings are `optimizer.OptimizerConfig`, so that one recipe serves both
engines; here they are T5X's own Adafactor, there optax's.
"""

from flax import traverse_util
from t5x import adafactor, optimizers

from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5x_engine import names


def _is_prompt(path: str, _: object) -> bool:
  return path == f"/{names.PROMPT}"


def prompt_optimizer(
    config: OptimizerConfig | None = None,
) -> optimizers.MultiOptimizer:
  """Moves the prompt; all other parameters have no optimizer state at all.

  Args:
    config: the settings; None means the paper's. T5X's trainer gives the
      learning rate of each step, its `learning_rate_fn`; a schedule of T5X may
      stand there.

  Returns:
    What `t5x.models` take as `optimizer_def`.
  """
  config = config or OptimizerConfig()
  inner = adafactor.Adafactor(
      learning_rate=config.learning_rate,
      factored=False,
      multiply_by_parameter_scale=False,
      decay_rate=config.decay_rate,
      clipping_threshold=config.clipping_threshold,
      weight_decay_rate=config.weight_decay_rate,
  )
  traversal = traverse_util.ModelParamTraversal(_is_prompt)
  return optimizers.MultiOptimizer([(traversal, inner)])
