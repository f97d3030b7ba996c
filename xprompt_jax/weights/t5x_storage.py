"""Where a T5X checkpoint lies, and the zarr arrays beside its msgpack.

A `Place` is a local folder or a prefix in a Google bucket, a `StoredArray` one
array in it. `t5x_specs.py` tells from a checkpoint's msgpack which arrays there
are; `t5x_native.py` finds a checkpoint and reads its tree; `t5x_writer.py`
writes one.
"""

from collections.abc import Mapping
import dataclasses
import functools
import itertools
import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorstore as ts

from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves
from xprompt_jax.weights.leaves import Index, Leaf

_BUCKET_PATH = re.compile(r"gs://([^/]+)/*(.*)", re.DOTALL)
_GZIP_LENGTH_BYTES = 4
_REASON_LENGTH = 200
# What TensorStore's statuses become in Python.
ERRORS = (ValueError, OSError, IndexError, NotImplementedError, RuntimeError)


@functools.cache
def context() -> ts.Context:
  """TensorStore's resources: nothing is kept, and little is done at once.

  T5X's chunks are up to 64 MiB; a chunk that is being read takes that twice,
  compressed and not.
  """
  return ts.Context(
      {
          "cache_pool": {"total_bytes_limit": 0},
          "data_copy_concurrency": {"limit": 4},
          "file_io_concurrency": {"limit": 4},
          "gcs_request_concurrency": {"limit": 8},
          # Without these it tries for a quarter of an hour.
          "gcs_request_retries": {
              "max_retries": 5,
              "initial_delay": "500ms",
              "max_delay": "5s",
          },
      }
  )


def reason(error: Exception) -> str:
  """TensorStore's message, its status and the spec or source line left out."""
  text = re.split(r" \[\w[\w ]*=|\n", str(error), maxsplit=1)[0].strip()
  return re.sub(r"^[A-Z_]+: ", "", text)[:_REASON_LENGTH]


def _bucket_error(name: str, error: Exception) -> UserError:
  hint = ""
  if str(error).startswith("PERMISSION_DENIED"):
    hint = (
        "; expected a bucket that all may read, or the credentials of 'gcloud"
        " auth application-default login'"
    )
  return UserError(f"{name}: cannot be read: {reason(error)}{hint}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """A folder.

  Attributes:
    name: as the user wrote it, for messages.
    path: absolute, or the prefix in the bucket without a slash at its end.
    bucket: None on the local disk.
  """

  name: str
  path: str
  bucket: str | None = None

  def kvstore(self, relative: str) -> dict[str, Any]:
    """TensorStore's spec of a folder in it, or of itself for ''."""
    path = "/".join(part for part in (self.path, relative) if part)
    if self.bucket is None:
      return {"driver": "file", "path": f"{path}/"}
    path = f"{path}/" if path else ""
    return {"driver": "gcs", "bucket": self.bucket, "path": path}

  def child(self, name: str) -> "Place":
    path = f"{self.path}/{name}" if self.path else name
    return Place(
        name=f"{self.name.rstrip('/')}/{name}", path=path, bucket=self.bucket
    )

  def is_outside(self, relative: str) -> bool:
    """Whether a link leads a file or folder in it elsewhere.

    The Hugging Face cache is let pass: in it, the files below
    models--X/snapshots/REVISION are links to models--X/blobs/CHECKSUM.
    """
    if self.bucket is not None:
      return False
    own = pathlib.Path(os.path.realpath(self.path))
    target = pathlib.Path(os.path.realpath(own / relative))
    blobs = [
        folder.parent / "blobs"
        for folder in own.parents
        if folder.name == "snapshots"
        and folder.parent.name.startswith("models--")
    ]
    return not target.is_relative_to(own) and target.parent not in blobs

  def bucket_object(self, name: str) -> bytes | None:
    """The contents of an object; None if there is none of that name."""
    try:
      store = ts.KvStore.open(self.kvstore(""), context=context()).result()
      found = store.read(name).result()
    except ERRORS as error:
      raise _bucket_error(f"{self.name}/{name}", error) from None
    return found.value if found.state == "value" else None

  def bucket_names(self) -> list[str]:
    """What lies in it: names of objects, those of folders with a '/'."""
    try:
      store = ts.KvStore.open(self.kvstore(""), context=context()).result()
      keys = store.list().result()
    except ERRORS as error:
      raise _bucket_error(self.name, error) from None
    # What comes before the first slash, with the slash.
    parts = (key.decode().partition("/") for key in keys)
    return sorted({name + slash for name, slash, _ in parts})


def place(name: str) -> Place:
  """The place of a path.

  Args:
    name: a local path or `gs://bucket/path`.

  Raises:
    UserError: a bucket's path without a bucket, or with '.' or '..' in it.
  """
  if not name.startswith("gs://"):
    return Place(name=name, path=os.path.abspath(name))
  match = _BUCKET_PATH.fullmatch(name)
  path = match.group(2).strip("/") if match else ""
  if not match or any(part in (".", "..") for part in path.split("/")):
    raise UserError(
        f"{name}: found no bucket's path, expected gs://BUCKET/PATH"
    )
  return Place(name=name.rstrip("/"), path=path, bucket=match.group(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredArray:
  """A zarr array of a checkpoint.

  Attributes:
    place: the checkpoint's folder.
    relative: the array's folder in it.
    tensor: the parameter, for messages.
    shape: as its spec says.
    dtype: likewise.
    zarray: fields of its .zarray that must be so, as its spec says or as T5X
      writes them; of the compressor, its id. What they are not compared with
      would be read as other numbers, and no checksum tells.
  """

  place: Place
  relative: str
  tensor: str
  shape: tuple[int, ...]
  dtype: str
  zarray: Mapping[str, Any]

  @property
  def file(self) -> str:
    return f"{self.place.name.rstrip('/')}/{self.relative}"

  def error(self, problem: str) -> UserError:
    return UserError(f"{self.file}: {self.tensor}: {problem}")

  def read(self, index: Index) -> np.ndarray:
    """Reads the chunks that an index touches.

    Args:
      index: a slice for each axis.

    Raises:
      UserError: a missing or damaged chunk or .zarray, or one that is not what
        the checkpoint says.
    """
    bounds = [s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True)]
    array = self._open()
    metadata = array.spec().to_json()["metadata"]
    self._check_zarray(metadata)
    self._check_chunks(metadata, bounds)
    part = tuple(slice(start, stop) for start, stop in bounds)
    try:
      return array[part].read().result()
    except ERRORS as error:
      raise self.error(f"found a damaged chunk: {reason(error)}") from None

  def _open(self) -> ts.TensorStore:
    if self.place.is_outside(self.relative):
      raise self.error("found a link that leads out of the checkpoint's folder")
    self._check_link(".zarray")
    spec = {
        "driver": "zarr",
        "kvstore": self.place.kvstore(self.relative),
        # Otherwise a chunk that is not there would be read as zeros.
        "fill_missing_data_reads": False,
    }
    try:
      array = ts.open(spec, open=True, read=True, context=context()).result()
    except ERRORS as error:
      raise self.error(f"cannot be opened: {reason(error)}") from None
    found = f"{tuple(array.shape)} {array.dtype.name}"
    expected = f"{self.shape} {self.dtype}"
    if found != expected:
      raise self.error(
          f"found {found} in .zarray, expected {expected} as in the checkpoint"
      )
    return array

  def _check_link(self, name: str) -> None:
    if self.place.is_outside(f"{self.relative}/{name}"):
      raise self.error(
          f"{name} is a link that leads out of the checkpoint's folder"
      )

  def _check_zarray(self, metadata: Mapping[str, Any]) -> None:
    compressor = metadata["compressor"] or {}
    found = {**metadata, "compressor": compressor.get("id")}
    for field, expected in self.zarray.items():
      if found[field] != expected:
        raise self.error(
            f"found {field} {found[field]!r} in .zarray, expected"
            f" {expected!r} as in the checkpoint"
        )

  def _check_chunks(
      self, metadata: Mapping[str, Any], bounds: list[tuple[int, int]]
  ) -> None:
    """Refuses local chunks that are missing, cut short, or links elsewhere.

    TensorStore stops at the last number and so does not see that a gzip
    trailer, with its checksum, is not there. The trailer ends with the length
    of the contents. Objects in a bucket are whole: their upload is checked.
    """
    if self.place.bucket is not None:
      return
    is_gzip = (metadata["compressor"] or {}).get("id") == "gzip"
    chunks = metadata["chunks"]
    numbers = int(np.prod(chunks, dtype=np.int64))
    length = numbers * np.dtype(self.dtype).itemsize
    folder = pathlib.Path(self.place.path) / self.relative
    positions = [
        range(start // chunk, -(-stop // chunk))
        for (start, stop), chunk in zip(bounds, chunks, strict=True)
    ]
    for position in itertools.product(*positions):
      # An array without axes has the one chunk "0".
      key = metadata["dimension_separator"].join(map(str, position)) or "0"
      self._check_link(key)
      try:
        with (folder / key).open("rb") as file:
          file.seek(-_GZIP_LENGTH_BYTES if is_gzip else 0, os.SEEK_END)
          end = file.read()
      except FileNotFoundError:
        raise self.error(f"chunk {key} is missing") from None
      except OSError as error:
        raise self.error(f"chunk {key}: {error.strerror}") from None
      if is_gzip and int.from_bytes(end, "little") != length % 2**32:
        raise self.error(f"chunk {key} is damaged: its end is not gzip's")


def stored_leaf(array: StoredArray, *, old_bfloat16: bool) -> Leaf:
  """A zarr array as a leaf.

  Args:
    array: the array.
    old_bfloat16: the bits of bfloat16 are stored as uint16, as T5X did before
      version 3 of its format.

  Raises:
    UserError: a dtype that no T5 is stored in.
  """
  if old_bfloat16 and array.dtype == "uint16":
    dtype = np.dtype("bfloat16")
  else:
    leaves.check_dtype(array.file, array.tensor, array.dtype)
    dtype = np.dtype(array.dtype)
  return Leaf(
      shape=array.shape,
      dtype=dtype,
      file=array.file,
      tensor=array.tensor,
      read=lambda index: array.read(index).view(dtype),
  )
