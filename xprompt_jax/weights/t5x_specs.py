"""Checks what a T5X checkpoint says about the zarr arrays beside it.

T5X's msgpack names each array by a TensorStore spec. A stored spec is not given
to TensorStore: it could name any file or service. What is needed of it is
checked here, and `t5x_storage.py` builds its own.
"""

from typing import Any

import numpy as np

from xprompt_jax.types import require
from xprompt_jax.weights.t5x_storage import Place, StoredArray

# The first two are local files: gfile is TensorFlow's name for them.
_DRIVERS = ("gfile", "file", "gcs")


# How .zarray calls the dtypes; TensorStore has its own name for bfloat16.
_ZARR_DTYPES = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "bfloat16",
    "uint16": "<u2",
}


def _plain_dtype(found: str) -> str:
  """The name of a zarr dtype such as '<f4', or itself, as '>f4' has none."""
  try:
    dtype = np.dtype(found)
  except (TypeError, ValueError):
    return found
  # Another order of bytes keeps its sign.
  plain = dtype.str == found and not found.startswith(">")
  return dtype.name if plain or found == dtype.name else found


def _is_sizes(found: Any) -> bool:
  return isinstance(found, list) and all(
      type(n) is int and n > 0 for n in found
  )


def _keeps_everything(transform: Any, shape: tuple[int, ...]) -> bool:
  """Whether a stored index transform is none: TensorStore likes to write one.

  T5X's oldest specs have it: lower bounds of 0 and the shape as the upper one.
  """
  if transform is None:
    return True
  if not isinstance(transform, dict) or "output" in transform:
    return False
  lower = transform.get("input_inclusive_min", [0] * len(shape))
  upper = transform.get("input_exclusive_max", list(shape))
  if not isinstance(lower, list) or not isinstance(upper, list):
    return False
  # Bounds that may still change stand in brackets of their own.
  upper = [n[0] if isinstance(n, list) and len(n) == 1 else n for n in upper]
  lower = [n[0] if isinstance(n, list) and len(n) == 1 else n for n in lower]
  return lower == [0] * len(shape) and upper == list(shape)


class _Spec:
  """The fields of a spec from a msgpack: maps, lists, text and numbers."""

  def __init__(self, spec: Any, owner: str):
    self._spec = spec
    self._owner = owner

  def field(self, *path: str) -> Any:
    found = self._spec
    for name in path:
      found = found.get(name) if isinstance(found, dict) else None
    return found

  def require(
      self, condition: bool, name: str, found: Any, expected: str
  ) -> None:
    require(condition, f"{self._owner}: {name}", found, expected)

  def folder(self, tensor: str) -> str:
    """Where the array of a parameter lies in the checkpoint's folder."""
    driver = self.field("driver")
    self.require(driver == "zarr", "driver", driver, "'zarr'")
    driver = self.field("kvstore", "driver")
    self.require(
        isinstance(driver, str) and driver in _DRIVERS,
        "kvstore driver",
        driver,
        f"one of {', '.join(_DRIVERS)}",
    )
    # Before TensorStore 0.1.14 the path stood beside the kvstore.
    path = self.field("kvstore", "path") or self.field("path")
    self.require(
        isinstance(path, str)
        and path.isprintable()
        and all(
            part not in ("", ".", "..")
            for part in path.removesuffix("/").split("/")
        ),
        "path",
        path,
        "a folder inside the checkpoint's",
    )
    path = path.removesuffix("/")
    # Of its name T5X makes it; another would be another parameter's.
    own = f"target.{tensor.replace('/', '.')}"
    self.require(path.rpartition("/")[2] == own, "path", path, repr(own))
    return path

  def shape(self) -> tuple[int, ...]:
    found = self.field("metadata", "shape")
    self.require(_is_sizes(found), "shape", found, "a list of sizes")
    transform = self.field("transform")
    self.require(
        _keeps_everything(transform, tuple(found)),
        "transform",
        transform,
        "none, or one that keeps the whole array",
    )
    return tuple(found)

  def dtype(self) -> str:
    zarr, name = self.field("metadata", "dtype"), self.field("dtype")
    for found in (zarr, name):
      self.require(
          found is None or isinstance(found, str), "dtype", found, "text"
      )
    both = {_plain_dtype(zarr) if zarr is not None else None, name}
    names = sorted(name for name in both if name is not None)
    self.require(len(names) == 1, "dtype", " and ".join(names) or None, "one")
    return names[0]

  def zarray(self) -> dict[str, Any]:
    """What .zarray must have besides shape and dtype.

    T5X's specs have chunks and a compressor, in all its versions. What they
    leave out is as TensorStore makes it.
    """
    metadata = self.field("metadata")
    order = metadata.get("order", "C")
    self.require(order == "C", "order", order, "'C'")
    separator = metadata.get("dimension_separator", ".")
    self.require(
        separator in (".", "/"), "dimension_separator", separator, "'.' or '/'"
    )
    found = {"order": order, "dimension_separator": separator}
    if "chunks" in metadata:
      chunks = found["chunks"] = metadata["chunks"]
      self.require(_is_sizes(chunks), "chunks", chunks, "a list of sizes")
    if "compressor" in metadata:
      compressor = metadata["compressor"]
      name = self.field("metadata", "compressor", "id")
      self.require(
          compressor is None or isinstance(name, str),
          "compressor",
          compressor,
          "none, or one with an id",
      )
      found["compressor"] = name
    return found


def stored_array(place: Place, tensor: str, spec: Any) -> StoredArray:
  """Checks a spec from a checkpoint's msgpack.

  Args:
    place: the checkpoint's folder.
    tensor: the parameter's name.
    spec: the spec as unpacked.

  Raises:
    UserError: a driver, path or metadata that T5X does not write.
  """
  checked = _Spec(spec, f"{place.name}: {tensor}")
  relative, shape = checked.folder(tensor), checked.shape()
  dtype, zarray = checked.dtype(), checked.zarray()
  if dtype in _ZARR_DTYPES:
    zarray["dtype"] = _ZARR_DTYPES[dtype]
  return StoredArray(
      place=place,
      relative=relative,
      tensor=tensor,
      shape=shape,
      dtype=dtype,
      zarray=zarray,
  )
