"""Two hosts load one checkpoint: each reads its own share of it."""

import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import loading

_FIELDS = {
    "vocab_size": 16384,
    "emb_dim": 64,
    "num_heads": 4,
    "head_dim": 8,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
    "mlp_dim": 64,
}
_HOST = """
import hashlib, json, sys
import jax
import numpy as np
from flax import traverse_util
host, path, port, fields = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(host))
from xprompt_jax import partitioning
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading

def bytes_read():
  with open("/proc/self/io") as f:
    return int(f.readline().split()[1])

config = T5Config(**json.loads(fields))
mesh = partitioning.make_mesh(4)
shardings = partitioning.param_shardings(config, mesh)
before = bytes_read()
try:
  frozen = loading.load_frozen(path, config, shardings=shardings)
except UserError as e:
  print(json.dumps(str(e)))
  sys.exit()
read = bytes_read() - before
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


def _save(folder, name, arrays):
  path = folder / f"{name}.safetensors"
  safetensors_numpy.save_file(arrays, path)
  return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """A file of random weights, and its arrays by name."""
  rng = np.random.default_rng(0)
  arrays = {
      name: rng.standard_normal(shape, np.float32)
      for name, shape in loading.parameter_shapes(T5Config(**_FIELDS)).items()
  }
  return _save(tmp_path_factory.mktemp("weights"), "t5", arrays), arrays


def _on_hosts(*paths):
  """What each of two processes with two devices each reports."""
  port = str(_free_port())
  environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
  }
  arguments = (port, json.dumps(_FIELDS))
  started = [
      subprocess.Popen(
          [sys.executable, "-c", _HOST, str(host), str(path), *arguments],
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
      )
      for host, path in enumerate(paths)
  ]
  done = [process.communicate(timeout=300) for process in started]
  for process, (_, errors) in zip(started, done, strict=True):
    assert process.returncode == 0, errors
  # gloo, which connects the processes, prints lines of its own.
  return [json.loads(output.splitlines()[-1]) for output, _ in done]


@pytest.fixture(scope="module")
def hosts(checkpoint):
  return _on_hosts(checkpoint[0], checkpoint[0])


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


def test_a_host_reads_its_share_and_takes_half_of_the_digests(
    hosts, checkpoint
):
  _, arrays = checkpoint
  total = sum(a.nbytes for a in arrays.values())
  assert total > 8_000_000
  for host in hosts:
    assert host["share"] < 0.6 * total
    # Half of the leaves are read once more, whole.
    assert host["read"] < 1.1 * total


def test_hosts_with_other_weights_are_refused(checkpoint, tmp_path):
  path, arrays = checkpoint
  name = "encoder/layers_1/mlp/wo/kernel"
  changed = arrays[name].copy()
  changed[63, 5] = np.nextafter(changed[63, 5], np.float32(100))
  other = _save(tmp_path, "other", {**arrays, name: changed})
  assert _on_hosts(path, other) == 2 * [
      f"CHECKPOINT: {name}: found other contents on some hosts, expected the"
      " same checkpoint on every host"
  ]
