"""Two hosts load one checkpoint: each reads its own share of it."""

import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from xprompt_jax import artifacts
from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import loading

_FIELDS = {
    "vocab_size": 512,
    "emb_dim": 16,
    "num_heads": 4,
    "head_dim": 8,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
    "mlp_dim": 64,
}
_HOST = """
import dataclasses, hashlib, json, sys
import jax
import numpy as np
from flax import traverse_util
host, port, path, fields = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(host))
from xprompt_jax import partitioning
from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import checkpoints, loading

read = 0
opened = checkpoints.open_checkpoint

def counted(leaf):
  def part(index):
    global read
    array = leaf.read(index)
    read += array.nbytes
    return array
  return dataclasses.replace(leaf, read=part)

checkpoints.open_checkpoint = lambda name, config: {
    k: counted(v) for k, v in opened(name, config).items()
}
config = T5Config(**json.loads(fields))
mesh = partitioning.make_mesh(4)
frozen = loading.load_frozen(
    path, config, shardings=partitioning.param_shardings(config, mesh)
)
flat = traverse_util.flatten_dict(frozen.params, sep="/")
shards = {
    name: [
        [[[s.start or 0, s.stop] for s in shard.index],
         hashlib.sha256(np.asarray(shard.data).tobytes()).hexdigest()]
        for shard in leaf.addressable_shards
    ]
    for name, leaf in flat.items()
}
print(json.dumps({
    "devices": [jax.device_count(), jax.local_device_count()],
    "fingerprint": frozen.fingerprint,
    "read": read,
    "share": sum(
        s.data.nbytes for a in flat.values() for s in a.addressable_shards
    ),
    "shards": shards,
}))
"""


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """A file of random weights, and its arrays by name."""
  rng = np.random.default_rng(0)
  arrays = {
      name: rng.standard_normal(shape, np.float32)
      for name, shape in loading.parameter_shapes(T5Config(**_FIELDS)).items()
  }
  path = tmp_path_factory.mktemp("weights") / "model.safetensors"
  artifacts.save_arrays(path, arrays)
  return path, arrays


@pytest.fixture(scope="module")
def hosts(checkpoint):
  """What each of two processes with two devices each reports."""
  port = str(_free_port())
  environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
  }
  started = [
      subprocess.Popen(
          [
              sys.executable,
              "-c",
              _HOST,
              str(host),
              port,
              str(checkpoint[0]),
              json.dumps(_FIELDS),
          ],
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
      )
      for host in range(2)
  ]
  done = [process.communicate(timeout=300) for process in started]
  for process, (_, errors) in zip(started, done, strict=True):
    assert process.returncode == 0, errors
  # gloo, which connects the processes, prints lines of its own.
  return [json.loads(output.splitlines()[-1]) for output, _ in done]


def test_both_hosts_take_the_fingerprint_of_one(hosts, checkpoint):
  path, _ = checkpoint
  alone = loading.load_frozen(str(path), T5Config(**_FIELDS)).fingerprint
  assert [host["devices"] for host in hosts] == [[4, 2], [4, 2]]
  assert [host["fingerprint"] for host in hosts] == [alone, alone]


def test_every_device_holds_its_part_of_the_file(hosts, checkpoint):
  _, arrays = checkpoint
  parts = 0
  for host in hosts:
    assert host["shards"].keys() == arrays.keys()
    for name, shards in host["shards"].items():
      for index, digest in shards:
        part = arrays[name][tuple(slice(*edges) for edges in index)]
        assert hashlib.sha256(part.tobytes()).hexdigest() == digest
        parts += part.shape != arrays[name].shape
  assert parts > 50


def test_a_host_reads_its_share_and_half_of_the_rest(hosts, checkpoint):
  _, arrays = checkpoint
  total = sum(a.nbytes for a in arrays.values())
  for host in hosts:
    assert host["share"] < 0.6 * total
    # Leaves whose digest it takes are read whole: about half of them.
    assert host["read"] < 0.9 * total
  assert sum(host["read"] for host in hosts) < 1.6 * total
