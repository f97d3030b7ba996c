"""Spreads the frozen model and its batches over a mesh of devices.

Every parameter names its axes (`t5/layers.py`); here those names meet the
mesh. Large matrices are split over `model`, examples over `data`, and the
prompt table, a few kilobytes, is on every device. XLA's partitioner does the
rest, so no other module knows how many devices there are.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError, require_int

# T5X's standard rules (`t5x/partitioning.py`), and those of a prompt table.
LOGICAL_AXIS_RULES = (
    ("batch", "data"),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", None),
    ("relpos_buckets", None),
    ("rows", None),
    ("prompt", None),
)


def make_mesh(num_model_partitions: int = 1) -> Mesh:
  """Arranges all devices as `data` x `model`.

  Args:
    num_model_partitions: devices that share one copy of the model; the others
      hold further copies and take a share of each batch.

  Returns:
    A mesh with axes `data` and `model`.

  Raises:
    UserError: more partitions than devices, or no divisor of their number.
  """
  require_int("num_model_partitions", num_model_partitions, 1)
  num_devices = jax.device_count()
  if num_devices % num_model_partitions:
    raise UserError(
        f"num_model_partitions: found {num_model_partitions}, expected a"
        f" divisor of the number of devices, {num_devices}"
    )
  return jax.make_mesh(
      (num_devices // num_model_partitions, num_model_partitions),
      ("data", "model"),
      axis_types=(AxisType.Auto, AxisType.Auto),
  )


def param_shardings(config: T5Config, mesh: Mesh) -> Any:
  """Where each parameter of a T5 lives.

  Args:
    config: the network's sizes.
    mesh: from `make_mesh`.

  Returns:
    A tree of `NamedSharding` shaped like the parameters.

  Raises:
    UserError: an axis whose size the mesh does not divide.
  """
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens)
  specs = nn.get_partition_spec(variables["params"])
  shardings = nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_AXIS_RULES)
  shapes = traverse_util.flatten_dict(nn.unbox(variables)["params"], sep="/")
  partitions = mesh.shape["model"]
  for name, sharding in traverse_util.flatten_dict(shardings, sep="/").items():
    for size, axis in zip(shapes[name].shape, sharding.spec, strict=False):
      if axis == "model" and size % partitions:
        raise UserError(
            f"num_model_partitions: found {partitions}, expected a divisor of"
            f" {size}, an axis of {name}"
        )
  return shardings


def replicate(tree: Any, mesh: Mesh | None) -> Any:
  """Puts a whole tree on every device of a mesh; None leaves it alone."""
  if mesh is None:
    return tree
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh | None, axis: int = 0
) -> Mapping[str, Any]:
  """Splits every array of a batch over `data`.

  Args:
    batch: arrays that have their B examples along `axis`.
    mesh: from `make_mesh`; None leaves the batch as it is.
    axis: which axis holds the examples.

  Returns:
    The same keys; arrays that live on the mesh.

  Raises:
    UserError: a B that the number of devices along `data` does not divide.
  """
  if mesh is None:
    return batch
  num_examples = next(iter(batch.values())).shape[axis]
  if num_examples % mesh.shape["data"]:
    raise UserError(
        f"batch: found {num_examples} examples, expected a multiple of the"
        f" {mesh.shape['data']} devices along the mesh's data axis"
    )
  sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
  return {k: jax.device_put(np.asarray(v), sharding) for k, v in batch.items()}
