"""T5X's own networks, features and initialisers, as several tests use them."""

import asyncio
import dataclasses

import jax
import pytest

from tests import t5x_required

t5_network = t5x_required.t5x_module("t5x.examples.t5.network")
scalable_network = t5x_required.t5x_module("t5x.examples.scalable_t5.network")
partitioning = t5x_required.t5x_module("t5x.partitioning")
frozen_weights = t5x_required.t5x_module(
    "xprompt_jax.t5x_engine.frozen_weights"
)
utils = t5x_required.t5x_module("t5x.utils")


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
  """T5X's layers add arrays of different rank; event loops are left open."""
  monkeypatch.setattr(asyncio, "set_event_loop", lambda loop: loop.close())
  with jax.numpy_rank_promotion("allow"):
    yield


def network_of(config, network=t5_network, **kwargs):
  """A network of T5X of these sizes."""
  own, theirs = (
      {field.name for field in dataclasses.fields(kind)}
      for kind in (config, network.T5Config)
  )
  sizes = {name: getattr(config, name) for name in own & theirs}
  return network.Transformer(network.T5Config(**(sizes | kwargs)))


def initializer_of(model, input_shapes, kind=utils.TrainStateInitializer):
  """T5X's partitioner on one device, and what makes a train state there."""
  partitioner = partitioning.PjitPartitioner(
      num_partitions=1, logical_axis_rules=frozen_weights.RULES
  )
  initializer = kind(
      optimizer_def=model.optimizer_def,
      init_fn=model.get_initial_variables,
      input_shapes=input_shapes,
      partitioner=partitioner,
  )
  return partitioner, initializer


def shape_of(value):
  """A JSON value without its numbers and texts."""
  if isinstance(value, dict):
    return {k: shape_of(v) for k, v in value.items()}
  if isinstance(value, list):
    return [shape_of(v) for v in value]
  return type(value).__name__
