"""The T5 on four forced CPU devices against the T5 on one."""

import pytest

from tests import four_devices

_ON_FOUR_DEVICES = """
import json
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from xprompt_jax import partitioning
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError

config = T5Config(
    vocab_size=14, emb_dim=6, num_heads=4, head_dim=5, num_encoder_layers=2,
    num_decoder_layers=1, mlp_dim=10,
)
t5 = T5(config)
inputs = np.array([[7, 3, 9, 1], [5, 12, 1, 0]], np.int32)
decoder_inputs = np.array([[0, 4, 8], [0, 6, 13]], np.int32)
tokens = jnp.ones((1, 1), jnp.int32)
params = nn.unbox(jax.jit(t5.init)(jax.random.key(0), tokens, tokens))["params"]

@jax.jit
def logits(params, batch):
  return t5.apply({"params": params}, batch["inputs"], batch["targets"])

def message(function, *args):
  try:
    function(*args)
  except UserError as error:
    return str(error)

batch = {"inputs": inputs, "targets": decoder_inputs}
one = logits(params, jax.tree.map(jnp.asarray, batch))
mesh = partitioning.make_mesh(2)
sharded = jax.device_put(params, partitioning.param_shardings(config, mesh))
four = logits(sharded, partitioning.shard_batch(batch, mesh))

def shard_shape(array):
  return array.sharding.shard_shape(array.shape)

encoder = sharded["encoder"]["layers_1"]
print(json.dumps({
    "mesh": dict(mesh.shape),
    "error": float(jnp.abs(one - np.asarray(four)).max() / jnp.abs(one).max()),
    "devices": len(four.sharding.device_set),
    "shards": {
        "embedding": shard_shape(sharded["token_embedder"]["embedding"]),
        "query": shard_shape(encoder["attention"]["query"]["kernel"]),
        "out": shard_shape(encoder["attention"]["out"]["kernel"]),
        "wo": shard_shape(encoder["mlp"]["wo"]["kernel"]),
        "relpos": shard_shape(
            sharded["encoder"]["relpos_bias"]["rel_embedding"]
        ),
        "norm": shard_shape(sharded["decoder"]["decoder_norm"]["scale"]),
    },
    "same": bool(jax.tree.all(jax.tree.map(
        lambda a, b: np.array_equal(a, b), params, sharded
    ))),
    "messages": [
        message(partitioning.make_mesh, 3),
        message(partitioning.make_mesh, 8),
        message(partitioning.make_mesh, 0),
        message(partitioning.param_shardings, config,
                partitioning.make_mesh(4)),
        message(partitioning.shard_batch, {"inputs": inputs[:1]}, mesh),
    ],
}))
"""


@pytest.fixture(scope="module")
def on_four_devices():
  return four_devices.run("-c", _ON_FOUR_DEVICES)


def test_logits_on_four_devices_equal_those_on_one(on_four_devices):
  assert on_four_devices["mesh"] == {"data": 2, "model": 2}
  assert on_four_devices["devices"] == 4
  assert on_four_devices["error"] < 1e-5


def test_parameters_are_split_and_unchanged(on_four_devices):
  assert on_four_devices["same"]
  assert on_four_devices["shards"] == {
      "embedding": [7, 6],  # [V, H], V = 14
      "query": [6, 10],  # [H, heads * head_dim] = [6, 20]
      "out": [10, 6],
      "wo": [5, 6],  # [mlp, H], mlp = 10
      "relpos": [2, 32],  # [heads, buckets], 4 heads
      "norm": [6],
  }


def test_what_does_not_divide_is_named(on_four_devices):
  assert on_four_devices["messages"] == [
      "num_model_partitions: found 3, expected a divisor of the number of"
      " devices, 4",
      "num_model_partitions: found 8, expected a divisor of the number of"
      " devices, 4",
      "num_model_partitions: found 0, expected an integer >= 1",
      "num_model_partitions: found 4, expected a divisor of 10, an axis of"
      " decoder/layers_0/mlp/wi_0/kernel",
      "batch: found 1 examples, expected a multiple of the 2 devices along the"
      " mesh's data axis",
  ]
