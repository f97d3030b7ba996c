"""The frozen weights, where the mesh has them, as T5X's network names them."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import core, traverse_util
import jax
from jax.sharding import Mesh, NamedSharding
import numpy as np
from t5x import partitioning, train_state

from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import names
from xprompt_jax.t5x_engine.prompt_model import model_of

# T5X's standard rules and those of the prompt, as t5x/prompt.gin has them.
RULES = partitioning.standard_logical_axis_rules(
    additional_rules=(
        (names.PROMPT_AXIS, None),
        (names.EMBED_AXIS, None),
        (names.PIECE_AXIS, None),
    )
)


class Partitioner(partitioning.PjitPartitioner):
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrozenWeights:
  """The frozen parameters as T5X's network has them.

  Attributes:
    partitioner: of the mesh on which they lie.
    params: nested, without a prompt.
    axes: where the mesh has each of them.
  """

  partitioner: Partitioner
  params: Any
  axes: Any


def place_weights(
    config: T5Config, frozen_params: Mapping, mesh: Mesh | None
) -> FrozenWeights:
  """Gives T5X the frozen parameters, for any number of prompts.

  They stay where they are; only kernels of another rank are copied.

  Args:
    config: the frozen network.
    frozen_params: of the network here.
    mesh: `data` x `model`, on which they lie; None means the one device.

  Raises:
    ValueError: they are not those of the network.
  """
  if mesh is None:
    one = np.array(jax.devices()[:1]).reshape(1, 1)
    mesh = Mesh(one, ("data", "model"))
  partitioner = Partitioner(mesh)
  # The frozen parameters of every prompt are the same.
  shortest = PromptConfig(length=1, num_pieces=1, init="random_uniform")
  model = model_of(config, shortest)
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
