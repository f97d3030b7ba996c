"""Host memory and time of loading a checkpoint of a few gigabytes.

    .venv/bin/python -m benchmarks.loading [GIGABYTES]

A random T5 1.1 is written as a sharded Hugging Face folder and as a T5X
checkpoint, then read leaf by leaf by `loading.load_frozen` in a process of its
own. The reference is what a plain reader does: all shards with
`safetensors.numpy.load_file`, then `jax.device_put`. On a CPU the loaded
parameters themselves are the host's share, and count.
"""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import zlib

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import huggingface, loading, t5x_writer
from xprompt_jax.weights.leaves import Leaf

_SHARD_BYTES = 10**9
# T5 1.1 XL's layers; their number follows from the size that is asked for.
_CONFIG = T5Config(
    vocab_size=32128,
    emb_dim=2048,
    num_heads=32,
    head_dim=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=5120,
)


def config_of(gigabytes: float) -> T5Config:
  """A network of about this many bytes in float32."""

  def size(layers: int) -> int:
    config = dataclasses.replace(
        _CONFIG, num_encoder_layers=layers, num_decoder_layers=layers
    )
    return 4 * sum(map(math.prod, loading.parameter_shapes(config).values()))

  layers = max(1, round((gigabytes * 1e9 - size(1)) / (size(2) - size(1))) + 1)
  return dataclasses.replace(
      _CONFIG, num_encoder_layers=layers, num_decoder_layers=layers
  )


def random_leaf(name: str, shape: tuple[int, ...]) -> Leaf:
  """A leaf that is drawn when it is read."""

  def read(index: tuple[slice, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape, np.float32)[index]

  return Leaf(
      shape=shape,
      dtype=np.dtype(np.float32),
      file="random",
      tensor=name,
      read=read,
  )


def _memory(field: str) -> int:
  text = pathlib.Path("/proc/self/status").read_text()
  line = next(x for x in text.splitlines() if x.startswith(field))
  return 1024 * int(line.split()[1])


def measure(kind: str, path: str, config: T5Config, dtype: str) -> dict:
  """Loads in this process: seconds, and how far memory rose at most.

  Files' pages that are mapped count as well (Linux's VmHWM).
  """
  jax.block_until_ready(jax.numpy.zeros(3) + 1)
  loading.parameter_shapes(config)
  before = _memory("VmRSS")
  pathlib.Path("/proc/self/clear_refs").write_text("5")
  started = time.perf_counter()
  if kind == "plain reader":
    files = sorted(pathlib.Path(path).glob("*.safetensors"))
    arrays = {}
    for file in files:
      arrays |= safetensors_numpy.load_file(file)
    arrays = {k: a.astype(dtype) for k, a in arrays.items()}
    tree = jax.device_put(arrays)
  else:
    tree = loading.load_frozen(path, config, dtype=dtype).params
  jax.block_until_ready(tree)
  seconds = time.perf_counter() - started
  share = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
  return {
      "seconds": seconds,
      "peak": _memory("VmHWM") - before,
      "share": share,
  }


def measure_alone(
    kind: str, path: pathlib.Path, config: T5Config, dtype: str
) -> dict:
  """`measure` in a process of its own."""
  done = subprocess.run(
      [
          sys.executable,
          "-m",
          "benchmarks.loading",
          "--measure",
          kind,
          str(path),
          json.dumps(dataclasses.asdict(config)),
          dtype,
      ],
      capture_output=True,
      text=True,
      check=True,
  )
  return json.loads(done.stdout)


def report(kind: str, path: pathlib.Path, config: T5Config, dtype: str) -> None:
  """Prints a line of the table."""
  found = measure_alone(kind, path, config, dtype)
  files = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
  bound = max(max(files), found["share"])
  gigabytes = [
      f"{x / 1e9:.2f}"
      for x in (sum(files), max(files), found["share"], found["peak"])
  ]
  cells = (
      kind,
      dtype,
      *gigabytes,
      f"{found['peak'] / bound:.2f}",
      f"{found['seconds']:.1f}",
  )
  print("| " + " | ".join(cells) + " |", flush=True)


def main(gigabytes: float) -> None:
  """Writes the checkpoints, measures each, prints the table."""
  config = config_of(gigabytes)
  shapes = loading.parameter_shapes(config)
  checkpoint = {name: random_leaf(name, s) for name, s in shapes.items()}
  with tempfile.TemporaryDirectory() as folder:
    face = pathlib.Path(folder) / "huggingface"
    native = pathlib.Path(folder) / "checkpoint_0"
    huggingface.write_folder(
        face, config, checkpoint, max_shard_bytes=_SHARD_BYTES
    )
    t5x_writer.write_checkpoint(native, config, checkpoint, step=0)
    print(
        "| reader | dtype | files GB | largest file GB | host's share GB | peak"
        " GB | peak / bound | seconds |\n" + "| --- " * 8 + "|",
        flush=True,
    )
    for dtype in ("float32", "bfloat16"):
      report("Hugging Face", face, config, dtype)
      report("T5X", native, config, dtype)
      report("plain reader", face, config, dtype)


if __name__ == "__main__":
  if sys.argv[1:2] == ["--measure"]:
    kind, path, fields, dtype = sys.argv[2:]
    print(
        json.dumps(measure(kind, path, T5Config(**json.loads(fields)), dtype))
    )
  else:
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
