"""Loading keeps the host's memory within 1.3 times its share.

`benchmarks/loading.py` measures the same with gigabytes.
"""

import pytest

from benchmarks import loading as benchmark
from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import huggingface, loading, t5x_writer

# 309 MB in float32, the largest leaf 33 MB.
CONFIG = T5Config(
    vocab_size=8000,
    emb_dim=1024,
    num_heads=16,
    head_dim=64,
    num_encoder_layers=3,
    num_decoder_layers=2,
    mlp_dim=2048,
)
SHARD_BYTES = 50 * 10**6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  folder = tmp_path_factory.mktemp("weights")
  checkpoint = {
      name: benchmark.random_leaf(name, shape)
      for name, shape in loading.parameter_shapes(CONFIG).items()
  }
  huggingface.write_folder(
      folder / "huggingface", CONFIG, checkpoint, max_shard_bytes=SHARD_BYTES
  )
  t5x_writer.write_checkpoint(folder / "t5x", CONFIG, checkpoint, step=0)
  return folder


# What TensorStore needs to unpack chunks, up to 0.25 GB of T5X's largest, does
# not shrink with the model: docs/checkpoints.md has it measured on gigabytes.
_CHUNKS = 60_000_000


@pytest.mark.parametrize(
    ("kind", "dtype", "share"),
    [
        ("huggingface", "float32", 308_867_072),
        ("huggingface", "bfloat16", 154_433_536),
        ("t5x", "float32", 308_867_072),
    ],
)
def test_memory_rises_by_the_hosts_share(folders, kind, dtype, share):
  found = benchmark.measure_alone(kind, folders / kind, CONFIG, dtype)
  assert found["share"] == share
  assert found["peak"] < 1.3 * share + (_CHUNKS if kind == "t5x" else 0)
