"""T5X's trainer, partitioner and checkpoints, around one prompt at a time.

The frozen weights stand beside T5X's train state, not in it: they reach the loss
as what T5X calls mutable variables, and none come back. So T5X differentiates the
prompt alone, never takes the weights' memory over, and its checkpoints hold the
prompt, its masks, the optimizer and the step: kilobytes.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from clu import asynclib
from flax import core, traverse_util
import jax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float
import numpy as np
from t5x import checkpoints, partitioning, train_state, trainer, utils
from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network as t5_network

from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import moving, names
from xprompt_jax.t5x_engine import optimizer as optimizer_lib
from xprompt_jax.t5x_engine.initializing import PromptInitializer
from xprompt_jax.t5x_engine.model import PromptedEncoderDecoderModel
from xprompt_jax.t5x_engine.starting import StartingPrompt, shapes_alone
from xprompt_jax.types import PromptMasks, UserError

_SHARED_FIELDS = (
    "vocab_size",
    "emb_dim",
    "num_heads",
    "head_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "mlp_dim",
    "mlp_activations",
    "logits_via_embedding",
    "dropout_rate",
)
# T5X's standard rules and those of the prompt, as t5x/prompt.gin has them.
RULES = partitioning.standard_logical_axis_rules(
    additional_rules=(
        (names.PROMPT_AXIS, None),
        (names.EMBED_AXIS, None),
        (names.PIECE_AXIS, None),
    )
)
_OUT_OF_MEMORY = (
    "the device is out of memory, expected less at once: NUM_MODEL_PARTITIONS"
    " larger, or BATCH_SIZE or the largest of BUCKETS smaller in another"
    " --workdir, or T5Config.remat = True for umT5; what is done is kept"
)
# No shape of a parameter depends on them.
_INPUT_SHAPES = {
    "encoder_input_tokens": (1, 1),
    "decoder_input_tokens": (1, 1),
    "decoder_target_tokens": (1, 1),
}


def network_of(config: T5Config) -> Any:
  """T5X's own network of these sizes, without a prompt.

  `examples/t5`, or unscanned `scalable_t5` where every layer has a position bias.
  """
  kwargs = {name: getattr(config, name) for name in _SHARED_FIELDS}
  kwargs["dtype"] = np.dtype(config.dtype)
  if config.relpos_per_layer:
    return scalable_network.Transformer(
        scalable_network.T5Config(
            **kwargs,
            scan_layers=False,
            remat_policy="full" if config.remat else "none",
        )
    )
  logits = config.float32_attention_logits
  return t5_network.Transformer(
      t5_network.T5Config(**kwargs, float32_attention_logits=logits)
  )


class _Partitioner(partitioning.PjitPartitioner):
  """T5X's, over the mesh on which the frozen weights lie.

  T5X's own meshes arrange devices by their hardware, and CPUs always as one model.
  """

  def __init__(self, mesh: Mesh):
    super().__init__(
        num_partitions=mesh.shape["model"], logical_axis_rules=RULES
    )
    self._mesh = mesh

  @property
  def mesh(self) -> Mesh:
    return self._mesh


class _Model(PromptedEncoderDecoderModel):
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
        super().get_initial_variables, input_shapes=_INPUT_SHAPES
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


class _Trainer(trainer.Trainer):
  """T5X's, whose step is given the frozen weights beside the train state."""

  def __init__(self, frozen: Any, frozen_axes: Any, **kwargs: Any):
    super().__init__(**kwargs)
    self._frozen = frozen
    self._frozen_axes = frozen_axes

  @functools.cached_property
  def _partitioned_train_step(self) -> Any:
    def train_step(frozen: Any, state: Any, batch: Any) -> Any:
      return trainer.train_with_lr(
          state.replace_flax_mutables(frozen),
          batch,
          learning_rate=self._learning_rate_fn(state.step),
          dropout_rng=self._get_step_rng(state.step),
          model=self._model,
          num_microbatches=None,
          data_partition_spec=self._partitioner.data_partition_spec,
      )

    step = self._partitioner.partition(
        train_step,
        in_axis_resources=(
            self._frozen_axes,
            self._train_state_axes,
            self._partitioner.data_partition_spec,
        ),
        out_axis_resources=(self._train_state_axes, None),
    )
    return functools.partial(step, self._frozen)

  def close(self) -> None:
    """As T5X's; lets go of the frozen weights, which the compiled step holds.

    T5X raises one error of its threads at each call; who trained has met them.
    """
    self._frozen = None
    self.__dict__.pop("_partitioned_train_step", None)
    while True:
      try:
        return super().close()
      except asynclib.AsyncError:
        continue


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrozenWeights:
  """The frozen parameters as T5X's network has them.

  Attributes:
    partitioner: of the mesh on which they lie.
    params: nested, without a prompt.
    axes: where the mesh has each of them.
  """

  partitioner: _Partitioner
  params: Any
  axes: Any


def _model_of(
    config: T5Config,
    prompt: PromptConfig,
    optimizer: OptimizerConfig | None = None,
    z_loss: float = 0.0,
) -> _Model:
  return _Model(
      network_of(config),
      StartingPrompt(config=prompt),
      input_vocabulary=None,
      output_vocabulary=None,
      optimizer_def=optimizer_lib.prompt_optimizer(optimizer),
      z_loss=z_loss,
      # The mean over target tokens, as `train_step.row_loss` has it.
      loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
  )


def place_weights(
    config: T5Config, frozen_params: Mapping, mesh: Mesh | None
) -> FrozenWeights:
  """Gives T5X the frozen parameters, for any number of prompts.

  They stay where they are; only kernels of another rank are copied.

  Args:
    config: the frozen network.
    frozen_params: of the network here.
    mesh: `data` x `model`, on which they lie; None means the one device.
  """
  if mesh is None:
    one = np.array(jax.devices()[:1]).reshape(1, 1)
    mesh = Mesh(one, ("data", "model"))
  partitioner = _Partitioner(mesh)
  # The frozen parameters of every prompt are the same.
  shortest = PromptConfig(length=1, num_pieces=1, init="random_uniform")
  model = _model_of(config, shortest)
  state = train_state.InferenceState.create(model.network_variables())
  axes = core.unfreeze(partitioner.get_mesh_axes(state).params)
  axes = traverse_util.flatten_dict(axes, sep="/")
  shapes = traverse_util.flatten_dict(core.unfreeze(state.params), sep="/")
  own = traverse_util.flatten_dict(dict(frozen_params), sep="/")
  expected = {n for n in shapes if not n.startswith(f"{names.SCOPE}/")}
  if expected != own.keys():
    raise ValueError(f"parameters differ: {sorted(expected ^ own.keys())}")
  frozen = {
      name: _where(
          array.reshape(shapes[name].shape),
          NamedSharding(partitioner.mesh, axes[name]),
      )
      for name, array in own.items()
  }
  axes = {name: axes[name] for name in frozen}
  return FrozenWeights(
      partitioner=partitioner,
      params=traverse_util.unflatten_dict(frozen, sep="/"),
      axes=traverse_util.unflatten_dict(axes, sep="/"),
  )


def _where(array: jax.Array, sharding: NamedSharding) -> jax.Array:
  """An array where a sharding has it, which it mostly is."""
  if array.sharding.is_equivalent_to(sharding, array.ndim):
    return array
  return jax.device_put(array, sharding)


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
      seed: int,
  ):
    """Prepares T5X's trainer; `begin` or `restore` gives it a prompt.

    Args:
      prompt: length, pieces, and whether pruned tokens are hidden.
      model: the frozen network.
      optimizer: settings of T5X's Adafactor.
      z_loss: weight of T5X's z-loss.
      weights: of the frozen network.
      seed: of dropout.
    """
    self._partitioner = weights.partitioner
    self._model = _model_of(model, prompt, optimizer, z_loss)
    self._initializer = PromptInitializer(
        optimizer_def=self._model.optimizer_def,
        init_fn=self._model.get_initial_variables,
        input_shapes=_INPUT_SHAPES,
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
        rng=jax.random.PRNGKey(seed),
        learning_rate_fn=utils.create_learning_rate_scheduler(
            factors="constant", base_learning_rate=optimizer.learning_rate
        ),
        num_microbatches=None,
    )

  def close(self) -> None:
    """Ends the threads of T5X's trainer, and lets go of the weights."""
    self._trainer.close()

  def begin(self, prompt: Float[np.ndarray, "P H"], masks: PromptMasks) -> None:
    """Starts at a prompt and its masks [P] and [P, K], with no step taken."""
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
    """Writes T5X's `checkpoint_STEP` there, and removes the one before."""
    self._checkpointer(folder).save(self._trainer.train_state)

  def restore(self, folder: pathlib.Path, step: int) -> None:
    """Goes on from what `save` wrote."""
    self._trainer.train_state = self._checkpointer(folder).restore(step=step)

  def _checkpointer(self, folder: pathlib.Path) -> Any:
    return checkpoints.Checkpointer(
        self._initializer.global_train_state_shape,
        self._partitioner,
        str(folder),
        keep=1,
    )
