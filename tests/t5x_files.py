"""Writes T5X's native format with TensorStore and msgpack alone.

Independent of the package's own writer, and able to write what T5X did in
earlier versions, and what it never would.
"""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import msgpack
import numpy as np
import pytest
import tensorstore as ts

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading, t5x_native

# All axes of different size.
CONFIG = T5Config(
    vocab_size=12,
    emb_dim=8,
    num_heads=2,
    head_dim=5,
    num_encoder_layers=3,
    num_decoder_layers=1,
    mlp_dim=7,
    relpos_num_buckets=4,
)
EMBEDDING = "token_embedder/embedding"  # [12, 8]


def random_arrays(
    config: T5Config = CONFIG, dtype: Any = np.float32
) -> dict[str, np.ndarray]:
  """Random parameters of a network, by name."""
  rng = np.random.default_rng(0)
  return {
      name: rng.normal(size=shape).astype(dtype)
      for name, shape in loading.parameter_shapes(config).items()
  }


def packed(array: np.ndarray) -> msgpack.ExtType:
  """An array as Flax packs it."""
  parts = (array.shape, array.dtype.name, array.tobytes())
  return msgpack.ExtType(1, msgpack.packb(parts))


def unflattened(flat: Mapping[str, Any]) -> dict[str, Any]:
  """{"a/b": 1} -> {"a": {"b": 1}}."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *path, last = name.split("/")
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[last] = value
  return tree


def write_zarr(folder: pathlib.Path, array: np.ndarray, chunks: list[int]):
  """A gzipped zarr array in a folder of its own."""
  dtype = array.dtype.str if array.dtype.kind in "fu" else array.dtype.name
  ts.open(
      {
          "driver": "zarr",
          "kvstore": {"driver": "file", "path": f"{folder}/"},
          "metadata": {
              "shape": list(array.shape),
              "chunks": chunks,
              "compressor": {"id": "gzip", "level": 1},
              "dtype": dtype,
          },
      },
      create=True,
  ).result().write(array).result()


def spec(name: str, array: np.ndarray, driver: str = "file") -> dict:
  """What T5X writes into its msgpack in place of a zarr array."""
  dtype = array.dtype.str if array.dtype.kind in "fu" else array.dtype.name
  kvstore = {"driver": driver, "path": f"target.{name.replace('/', '.')}"}
  if driver == "gcs":
    kvstore["bucket"] = "t5x-dummy-bucket"
  return {
      "driver": "zarr",
      "kvstore": kvstore,
      "metadata": {
          "shape": list(array.shape),
          "chunks": [3, *array.shape[1:]],
          "compressor": {"id": "gzip", "level": 1},
          "dtype": dtype,
      },
  }


def write_msgpack(
    file: pathlib.Path, target: Mapping[str, Any], version: int = 3
) -> None:
  """The msgpack of a checkpoint; arrays under Flax's form, the rest plainly.

  The optimizer's state is one that nobody should look into.
  """
  tree = {
      "version": version,
      "optimizer": {
          "state": {
              "step": packed(np.array(3, np.int32)),
              "param_states": {"odd": msgpack.ExtType(77, b"\xff")},
          },
          "target": unflattened(
              {
                  name: packed(value)
                  if isinstance(value, np.ndarray)
                  else value
                  for name, value in target.items()
              }
          ),
      },
  }
  file.write_bytes(msgpack.packb(tree))


def write(
    folder: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    *,
    driver: str = "file",
    version: int = 3,
    in_zarr: Callable[[str], bool] = lambda name: "kernel" in name,
    change: Callable[[dict], dict] = lambda spec: spec,
) -> pathlib.Path:
  """A whole checkpoint, with chunks of 3 rows in zarr.

  Args:
    folder: made if need be.
    arrays: parameters by name.
    driver: which one the specs name.
    version: of T5X's format.
    in_zarr: which parameters lie beside the msgpack.
    change: makes another spec of one.

  Returns:
    The folder.
  """
  folder.mkdir(parents=True, exist_ok=True)
  target: dict[str, Any] = {}
  for name, array in arrays.items():
    target[name] = array
    if in_zarr(name):
      target[name] = change(spec(name, array, driver))
      path = folder / f"target.{name.replace('/', '.')}"
      write_zarr(path, array, [3, *array.shape[1:]])
  write_msgpack(folder / "checkpoint", target, version)
  return folder


def opening(path: pathlib.Path | str, config: T5Config = CONFIG) -> str:
  """The message of a checkpoint that cannot be opened, one line."""
  with pytest.raises(UserError) as error:
    t5x_native.open_checkpoint(str(path), config)
  assert "\n" not in str(error.value)
  return str(error.value)
