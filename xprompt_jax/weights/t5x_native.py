"""Reads T5X's native checkpoints: one msgpack and zarr arrays beside it.

    FOLDER/checkpoint          msgpack {version, optimizer: {state, target}}
    FOLDER/target.encoder...   a zarr array for each parameter that is not in
                               the msgpack itself

The parameters are `optimizer/target`; the optimizer's state is not looked at.
`msgpack_index.py` finds the values of the msgpack, `t5x_specs.py` checks what
it says of zarr arrays, `t5x_storage.py` reads them, `t5x_names.py` turns trees
of stacked layers into the network's, and `t5x_writer.py` writes the format.
"""

from collections.abc import Iterator
import dataclasses
import functools
import io
import os
import pathlib
import re
from typing import Any, BinaryIO

import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights import msgpack_index, t5x_names, t5x_specs, t5x_storage
from xprompt_jax.weights.leaves import Checkpoint, Index, Leaf
from xprompt_jax.weights.t5x_storage import Place

CHECKPOINT_FILE = "checkpoint"
STEP_FOLDER = re.compile(r"checkpoint_(\d+)")

# TensorFlow's text file of the same name begins so.
_TENSORFLOW = b"model_checkpoint_path"
_ORBAX_FILES = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "state")
# What Orbax's first format has in the msgpack for an array beside it.
_ORBAX_TEXT = "PLACEHOLDER://"
# Before version 3, bfloat16 was stored as uint16.
_VERSIONS = (2, 3)


@dataclasses.dataclass(frozen=True)
class _Source:
  """A checkpoint's msgpack, and the folder its zarr arrays lie in."""

  place: Place
  name: str
  open: msgpack_index.Open


def _local_file(path: pathlib.Path, place: Place) -> _Source:
  def open_file() -> BinaryIO:
    try:
      return path.open("rb")
    except OSError as error:
      raise UserError(f"{path}: {error.strerror}") from None

  return _Source(place, str(path), open_file)


def _one_step(place: Place, names: list[str]) -> str:
  """The one checkpoint folder among the names; says what else is there."""
  steps = [n for n in names if STEP_FOLDER.fullmatch(n)]
  steps.sort(key=lambda n: int(n.partition("_")[2]))
  if len(steps) == 1:
    return steps[0]
  if steps:
    raise UserError(
        f"{place.name}: found {', '.join(steps)}, expected the folder of one"
        " checkpoint"
    )
  if any(re.fullmatch(r".*\.ckpt-\d+\.index", n) for n in names):
    raise _tensorflow(place.name)
  if any(name in names for name in _ORBAX_FILES):
    raise _orbax(place.name)
  raise UserError(
      f"{place.name}: found no file '{CHECKPOINT_FILE}', expected T5X's native"
      " format"
  )


def _tensorflow(name: str) -> UserError:
  return UserError(
      f"{name}: found a TensorFlow checkpoint, expected T5X's native format;"
      " T5X's t5x/scripts/convert_tf_checkpoint.py converts it"
  )


def _orbax(name: str) -> UserError:
  return UserError(
      f"{name}: found a checkpoint written by Orbax, expected T5X's native"
      " format, which T5X's checkpoints.Checkpointer writes"
  )


def _local_source(path: pathlib.Path) -> _Source:
  if not path.is_dir():
    return _local_file(path, t5x_storage.place(str(path.parent)))
  place = t5x_storage.place(str(path))
  if (path / CHECKPOINT_FILE).is_file():
    if place.is_outside(CHECKPOINT_FILE):
      raise UserError(
          f"{path / CHECKPOINT_FILE}: found a link that leads out of the"
          " checkpoint's folder"
      )
    return _local_file(path / CHECKPOINT_FILE, place)
  return _local_source(path / _one_step(place, os.listdir(path)))


def _bucket_source(place: Place) -> _Source:
  data = place.bucket_object(CHECKPOINT_FILE)
  if data is None and place.path:
    # The file itself: its folder is the prefix before it.
    parent = t5x_storage.place(place.name.rpartition("/")[0] + "/")
    data = parent.bucket_object(place.path.rpartition("/")[2])
    if data is not None:
      return _Source(parent, place.name, functools.partial(io.BytesIO, data))
  if data is None:
    names = [n.removesuffix("/") for n in place.bucket_names()]
    return _bucket_source(place.child(_one_step(place, names)))
  return _Source(
      place,
      f"{place.name}/{CHECKPOINT_FILE}",
      functools.partial(io.BytesIO, data),
  )


def _source(path: str) -> _Source:
  """Finds the msgpack of a checkpoint."""
  if path.startswith("gs://"):
    source = _bucket_source(t5x_storage.place(path))
  else:
    try:
      source = _local_source(pathlib.Path(path))
    except OSError as error:
      raise UserError(f"{path}: {error.strerror}") from None
  with source.open() as file:
    if file.read(len(_TENSORFLOW)) == _TENSORFLOW:
      raise _tensorflow(source.name)
  return source


def _parameters(source: _Source) -> tuple[msgpack_index.Tree, Any]:
  """The tree of the parameters, and the format's version."""
  tree = msgpack_index.read_tree(source.open, source.name)
  version = msgpack_index.small_value(source.open, tree.get("version", {}))
  if "version" in tree and version not in _VERSIONS:
    raise UserError(
        f"{source.name}: found version {version!r}, expected one of"
        f" {', '.join(map(str, _VERSIONS))}"
    )
  optimizer = tree.get("optimizer", tree)
  target = optimizer.get("target") if isinstance(optimizer, dict) else None
  if not isinstance(target, dict) or not target:
    raise UserError(
        f"{source.name}: found {', '.join(sorted(tree)) or 'nothing'}, expected"
        " parameters under optimizer/target"
    )
  return target, version


def _inline_leaf(source: _Source, tensor: str, node: Any) -> Leaf:
  """An array in the msgpack itself."""
  array = msgpack_index.packed_array(source.open, source.name, tensor, node)

  def read(index: Index) -> np.ndarray:
    found = msgpack_index.read_array(source.open, array)
    if found is None:
      raise UserError(
          f"{source.name}: {tensor}: found a shorter file than it was when it"
          " was opened"
      )
    return found[index]

  return Leaf(
      shape=array.shape,
      dtype=np.dtype(array.dtype),
      file=source.name,
      tensor=tensor,
      read=read,
  )


def _leaves(
    source: _Source, version: Any, node: Any, path: tuple[str, ...]
) -> Iterator[tuple[str, Leaf]]:
  """Walks the parameters' tree."""
  tensor = "/".join(path)
  if msgpack_index.is_array(node):
    yield tensor, _inline_leaf(source, tensor, node)
  elif isinstance(node, dict) and {"driver", "kvstore"} <= node.keys():
    spec = msgpack_index.small_value(source.open, node)
    array = t5x_specs.stored_array(source.place, tensor, spec)
    old = version == 2
    yield tensor, t5x_storage.stored_leaf(array, old_bfloat16=old)
  elif isinstance(node, dict):
    for name, part in node.items():
      yield from _leaves(source, version, part, (*path, name))
  else:
    found = msgpack_index.small_value(source.open, node)
    if isinstance(found, str) and found.startswith(_ORBAX_TEXT):
      raise _orbax(source.name)
    raise UserError(
        f"{source.name}: {tensor}: found {found!r}, expected an array"
    )


def _stored(path: str) -> tuple[str, dict[str, Leaf]]:
  """The name of the msgpack, and the arrays under the names they have there."""
  source = _source(path)
  target, version = _parameters(source)
  found: dict[str, Leaf] = {}
  folders: dict[str, str] = {}
  for name, leaf in _leaves(source, version, target, ()):
    if name in found:
      raise UserError(f"{source.name}: found {name} twice, expected it once")
    found[name] = leaf
    if leaf.file != source.name and leaf.file in folders:
      raise UserError(
          f"{leaf.file}: found it for {folders[leaf.file]} and for {name},"
          " expected it for one"
      )
    folders[leaf.file] = name
  return source.name, found


def open_checkpoint(path: str, config: T5Config) -> Checkpoint:
  """Opens a checkpoint and reads the names, shapes and dtypes in it.

  Args:
    path: the folder that holds `checkpoint`, that file, T5X's older single
      file, or a folder in which one such folder `checkpoint_STEP` lies; on the
      disk or as `gs://BUCKET/PATH`. From a bucket the msgpack is read whole and
      kept in memory: little beside zarr arrays, all parameters and the
      optimizer's state in the single file.
    config: the sizes it should have; only the layers are counted here.

  Returns:
    Its parameters under T5X's names, each read from its chunks when it is
    asked for.

  Raises:
    UserError: no checkpoint is there, it is of another kind, or it is damaged.
      Reading a leaf raises it too.
  """
  return t5x_names.network_leaves(_stored(path)[1], config)


def guess_config(path: str) -> T5Config:
  """Tells the sizes of a network from the names and shapes of its checkpoint.

  What no shape shows is taken as in all released T5s: a largest relative
  distance of 128, GELU in gated feed-forward blocks and ReLU in others.

  Args:
    path: as for `open_checkpoint`.

  Raises:
    UserError: it is no checkpoint of a T5, or as for `open_checkpoint`.
  """
  name, stored = _stored(path)
  return t5x_names.config_of(
      {n: leaf.shape for n, leaf in stored.items()}, name
  )
