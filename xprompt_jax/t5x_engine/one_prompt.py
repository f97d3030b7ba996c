"""T5X's trainer, partitioner and checkpoints, around one prompt at a time.

The frozen weights stand beside T5X's train state, not in it. So T5X
differentiates the prompt alone, never takes the weights' memory over, and its
checkpoints hold the prompt, its masks, the optimizer and the step: kilobytes.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import functools
import logging
import pathlib
from typing import Any

from clu import asynclib
from flax import core, traverse_util
import jax
from jaxtyping import Float
import numpy as np
from t5x import checkpoints, train_state, trainer, utils

from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import moving
from xprompt_jax.t5x_engine.frozen_weights import FrozenWeights
from xprompt_jax.t5x_engine.initializing import PromptInitializer
from xprompt_jax.t5x_engine.prompt_model import INPUT_SHAPES, model_of
from xprompt_jax.types import PromptMasks, UserError

_OUT_OF_MEMORY = (
    "the device is out of memory, expected less at once: NUM_MODEL_PARTITIONS"
    " larger, or BATCH_SIZE or the largest of BUCKETS smaller in another"
    " --workdir; what is done is kept"
)


class _Trainer(trainer.Trainer):
  """T5X's, whose step is given the frozen weights beside the train state.

  Attributes:
    dropout_seed: given to the step, so that every seed shares what is compiled.
  """

  def __init__(self, frozen: Any, frozen_axes: Any, **kwargs: Any):
    super().__init__(rng=None, **kwargs)
    self.dropout_seed = 0
    self._frozen = frozen
    self._frozen_axes = frozen_axes

  @property
  def _partitioned_train_step(self) -> Any:
    rng = jax.random.PRNGKey(self.dropout_seed)
    return functools.partial(self._step, self._frozen, rng)

  @functools.cached_property
  def _step(self) -> Any:
    def train_step(frozen: Any, rng: Any, state: Any, batch: Any) -> Any:
      return trainer.train_with_lr(
          state.replace_flax_mutables(frozen),
          batch,
          learning_rate=self._learning_rate_fn(state.step),
          dropout_rng=jax.random.fold_in(rng, state.step),
          model=self._model,
          num_microbatches=None,
          data_partition_spec=self._partitioner.data_partition_spec,
      )

    return self._partitioner.partition(
        train_step,
        in_axis_resources=(
            self._frozen_axes,
            None,
            self._train_state_axes,
            self._partitioner.data_partition_spec,
        ),
        out_axis_resources=(self._train_state_axes, None),
    )

  def close(self) -> None:
    """As T5X's; lets go of the frozen weights.

    T5X raises one error of its threads at each call; who trained has met them.
    """
    self._frozen = None
    while True:
      try:
        return super().close()
      except asynclib.AsyncError:
        continue


class OnePrompt:
  """A prompt inside T5X; after each other, any number of the same length."""

  def __init__(
      self,
      *,
      prompt: PromptConfig,
      model: T5Config,
      optimizer: OptimizerConfig,
      z_loss: float,
      weights: FrozenWeights,
  ):
    """Prepares T5X's trainer; `begin` or `restore` gives it a prompt.

    Args:
      prompt: length, pieces, and whether pruned tokens are hidden.
      model: the frozen network.
      optimizer: settings of T5X's Adafactor.
      z_loss: weight of T5X's z-loss.
      weights: of the frozen network.
    """
    self._partitioner = weights.partitioner
    self._model = model_of(model, prompt, optimizer, z_loss)
    self._initializer = PromptInitializer(
        optimizer_def=self._model.optimizer_def,
        init_fn=self._model.get_initial_variables,
        input_shapes=INPUT_SHAPES,
        partitioner=self._partitioner,
    )
    self._trainer = _Trainer(
        weights.params,
        weights.axes,
        model=self._model,
        train_state=None,
        partitioner=self._partitioner,
        eval_names=(),
        summary_dir=None,
        train_state_axes=self._initializer.train_state_axes,
        learning_rate_fn=utils.create_learning_rate_scheduler(
            factors="constant", base_learning_rate=optimizer.learning_rate
        ),
        num_microbatches=None,
    )

  def close(self) -> None:
    """Ends the threads of T5X's trainer, and lets go of the weights."""
    self._trainer.close()

  def begin(
      self, prompt: Float[np.ndarray, "P H"], masks: PromptMasks, seed: int
  ) -> None:
    """Starts at a prompt and its masks, with no step taken.

    Args:
      prompt: values, unmasked.
      masks: [P] and [P, K].
      seed: of dropout.
    """
    self._trainer.dropout_seed = seed
    params = moving.to_parameters(
        {
            "prompt": prompt[None],
            "token_mask": np.asarray(masks.token_mask)[None],
            "piece_mask": np.asarray(masks.piece_mask)[None],
        }
    )
    shapes = self._initializer.global_train_state_shape
    state = train_state.FlaxOptimTrainState.create(
        self._model.optimizer_def,
        core.freeze({"params": params, "params_axes": shapes.params_axes}),
    )
    self._trainer.train_state = self._partitioner.move_params_to_devices(
        state, self._initializer.train_state_axes
    )

  def train(
      self, batches: Iterable[Mapping[str, np.ndarray]], num_steps: int
  ) -> float:
    """Takes steps; returns the mean of their losses, in nats.

    Args:
      batches: T5X's features, [B, ...].
      num_steps: how many are taken.

    Raises:
      UserError: the device is out of memory.
    """
    try:
      with _quiet_threads():
        summary = self._trainer.train(iter(batches), num_steps).result()
    except (asynclib.AsyncError, jax.errors.JaxRuntimeError) as e:
      # T5X's threads wrap what they meet.
      error = e.__cause__ if isinstance(e, asynclib.AsyncError) else e
      if "RESOURCE_EXHAUSTED" in str(error):
        raise UserError(_OUT_OF_MEMORY) from error
      raise
    return float(summary["loss"].value)

  @property
  def prompt(self) -> Float[np.ndarray, "P H"]:
    """Its values now, unmasked."""
    params = core.unfreeze(self._trainer.train_state.params)
    return moving.from_parameters(params)["prompt"][0]

  @property
  def state(self) -> dict[str, np.ndarray]:
    """All that a checkpoint holds, by T5X's names: prompt, masks, step, ..."""
    state = self._trainer.train_state.state_dict()
    return {
        name: np.asarray(leaf)
        for name, leaf in traverse_util.flatten_dict(state, sep="/").items()
        if leaf is not None
    }

  def save(self, folder: pathlib.Path) -> None:
    """Writes T5X's `checkpoint_STEP` there, and removes the one before.

    Raises:
      Exception: whatever T5X and its storage raise; `RowState` names them.
    """
    self._checkpointer(folder).save(self._trainer.train_state)

  def restore(self, folder: pathlib.Path, step: int, seed: int) -> None:
    """Goes on from what `save` wrote.

    Args:
      folder: that of `save`.
      step: of the checkpoint.
      seed: of dropout.

    Raises:
      Exception: as `save`.
    """
    self._trainer.dropout_seed = seed
    self._trainer.train_state = self._checkpointer(folder).restore(step=step)

  def _checkpointer(self, folder: pathlib.Path) -> Any:
    return checkpoints.Checkpointer(
        self._initializer.global_train_state_shape,
        self._partitioner,
        str(folder),
        keep=1,
    )


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
  """Drops what T5X's threads log of errors that they hand on as well."""

  def is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Error in producer thread")

  logger = logging.getLogger("absl")
  logger.addFilter(is_news)
  try:
    yield
  finally:
    logger.removeFilter(is_news)
