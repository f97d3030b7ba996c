"""Writes T5X's native format, for T5X itself and for `t5x_native.py` to read.

A folder `checkpoint_STEP` as T5X's `checkpoints.Checkpointer` leaves it, in
version 3 of its format: larger arrays as gzipped zarr, small ones inside the
msgpack. It is whole or not there.
"""

import os
import pathlib
from typing import Any

from flax import serialization, traverse_util
import numpy as np
import tensorstore as ts

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError, require_int
from xprompt_jax.weights import loading, new_folders, t5x_storage
from xprompt_jax.weights.leaves import Checkpoint
from xprompt_jax.weights.t5x_native import CHECKPOINT_FILE

_VERSION = 3
# Layer norms and position biases are smaller, everything else is larger.
_INLINE_BYTES = 2**16
# T5X reads whatever chunks there are; many hosts can share these.
_CHUNK_BYTES = 2**26


def _chunks(shape: tuple[int, ...], itemsize: int) -> list[int]:
  """Halves the longest axis until a chunk is small enough."""
  chunks = list(shape)
  while np.prod(chunks, dtype=np.int64) * itemsize > _CHUNK_BYTES:
    longest = chunks.index(max(chunks))
    chunks[longest] = -(-chunks[longest] // 2)
  return chunks


def _write_array(
    folder: pathlib.Path, name: str, array: np.ndarray
) -> dict[str, Any]:
  """Writes one zarr array; returns the spec that stands for it."""
  dtype = array.dtype.name
  spec = {
      "driver": "zarr",
      "dtype": dtype,
      "kvstore": {"driver": "file", "path": name},
      "metadata": {
          "chunks": _chunks(array.shape, array.dtype.itemsize),
          "compressor": {"id": "gzip", "level": 1},
          "dtype": dtype if dtype == "bfloat16" else array.dtype.str,
          "shape": list(array.shape),
      },
  }
  place = t5x_storage.place(str(folder))
  own = {**spec, "kvstore": place.kvstore(name)}
  context = t5x_storage.context()
  try:
    stored = ts.open(own, create=True, context=context).result()
    stored.write(array).result()
  except t5x_storage.ERRORS as error:
    raise UserError(
        f"{folder / name}: cannot be written: {t5x_storage.reason(error)}"
    ) from None
  return spec


def _write_into(
    folder: pathlib.Path, checkpoint: Checkpoint, step: int
) -> None:
  target: dict[str, Any] = {}
  # File by file, so that a reader has to open each but once.
  for name in sorted(checkpoint, key=lambda n: (checkpoint[n].file, n)):
    array = np.ascontiguousarray(checkpoint[name].whole())
    if array.nbytes >= _INLINE_BYTES:
      path = f"target.{name.replace('/', '.')}"
      target[name] = _write_array(folder, path, array)
    else:
      target[name] = array
  tree = {
      "version": _VERSION,
      "optimizer": {
          "state": {"step": np.asarray(step, np.int32)},
          "target": traverse_util.unflatten_dict(target, sep="/"),
      },
  }
  with (folder / CHECKPOINT_FILE).open("wb") as file:
    file.write(serialization.msgpack_serialize(tree))
    file.flush()
    os.fsync(file.fileno())


def new_checkpoint(folder: pathlib.Path, step: int) -> pathlib.Path:
  """Where a checkpoint will lie: `checkpoint_STEP`, which does not exist yet.

  Raises:
    UserError: it does, or cannot be made: `folder` is a file, say.
  """
  require_int("step", step, 0)
  final = folder / f"checkpoint_{step}"
  if os.path.lexists(final):
    raise UserError(f"{final}: is there already, expected a new folder")
  new_folders.check_free(final)
  return final


def write_checkpoint(
    folder: pathlib.Path, config: T5Config, checkpoint: Checkpoint, *, step: int
) -> pathlib.Path:
  """Writes a checkpoint that T5X restores.

  There are parameters and the step, and no optimizer's state: what T5X needs
  to evaluate, to infer and to export. To train from it, let T5X start the
  state afresh, as it is made to do for any checkpoint without one:

      RestoreCheckpointConfig:
        fallback_to_scratch = True
        state_transformation_fns = [@state_utils.apply_assignment_map]
      state_utils.apply_assignment_map:
        assignment_map = [(r'state.*', None)]

  Args:
    folder: where `checkpoint_STEP` comes to lie; made if it is not there.
    config: the network's sizes.
    checkpoint: its parameters; one after another is read and written, in the
      dtype it has.
    step: how many steps T5X is to count from.

  Returns:
    The new folder.

  Raises:
    UserError: parameters that do not fit the network, a checkpoint that is
      there already, or a full disk.
  """
  final = new_checkpoint(folder, step)
  loading.check_tree(checkpoint, config, str(final))
  with new_folders.new_folder(final) as temporary:
    _write_into(temporary, checkpoint, step)
  return final
