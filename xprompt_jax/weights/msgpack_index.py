"""Finds the values of a msgpack file without reading them.

T5X keeps a checkpoint's tree and its small arrays in one msgpack file, in its
older form every array. Unpacking it would hold the optimizer's state and the
parameters in memory together; here only names and positions are taken, and an
array is read when it is asked for. `t5x_native.py` gives them their meaning.

Arrays are Flax's: an extension value that holds (shape, dtype, bytes).
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any, BinaryIO

import msgpack
import numpy as np

from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves

# An opener of the file, so that nothing stays open between reads.
Open = Callable[[], BinaryIO]

_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
}
# How many bytes the length takes; an extension's type is a byte of its own.
_LENGTH_BYTES = {
    **dict.fromkeys((0xC4, 0xC7, 0xD9), 1),
    **dict.fromkeys((0xC5, 0xC8, 0xDA, 0xDC, 0xDE), 2),
    **dict.fromkeys((0xC6, 0xC9, 0xDB, 0xDD, 0xDF), 4),
}
_KINDS = {
    **dict.fromkeys((0xC4, 0xC5, 0xC6), "bytes"),
    **dict.fromkeys((0xC7, 0xC8, 0xC9), "extension"),
    **dict.fromkeys((0xD9, 0xDA, 0xDB), "text"),
    **dict.fromkeys((0xDC, 0xDD), "list"),
    **dict.fromkeys((0xDE, 0xDF), "map"),
}
# Flax's extension types of arrays and of scalars.
_ARRAY_TYPES = (1, 3)
_CHUNKED = "__msgpack_chunked_array__"
_MAX_DEPTH = 64
_MAX_SMALL = 2**16


@dataclasses.dataclass(frozen=True)
class Value:
  """Where a value that is no map lies: its bytes are [start, stop)."""

  kind: str
  start: int
  stop: int


# Maps by name; what they hold is a map or a value.
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PackedArray:
  """An array inside the file: numbers of `dtype` in C order.

  Attributes:
    shape: its shape.
    dtype: its dtype's name, as stored.
    parts: start and length in bytes; Flax cuts arrays above 1 GiB.
  """

  shape: tuple[int, ...]
  dtype: str
  parts: tuple[tuple[int, int], ...]


class _Walker:
  """Goes through a msgpack file, value by value."""

  def __init__(self, file: BinaryIO, name: str):
    self.file = file
    self.name = name
    self.size = file.seek(0, 2)
    file.seek(0)
    self.path: list[str] = []

  def error(self, problem: str) -> UserError:
    where = "/".join(self.path)
    return UserError(f"{self.name}: {where + ': ' if where else ''}{problem}")

  def take(self, count: int) -> bytes:
    self.need(count)
    return self.file.read(count)

  def need(self, count: int) -> None:
    """Refuses a value that is longer than what is left of the file."""
    missing = self.file.tell() + count - self.size
    if missing > 0:
      raise self.error(
          f"found the file's end at byte {self.size}, expected at least"
          f" {missing} more; the msgpack is truncated"
      )

  def header(self) -> tuple[str, int]:
    """The kind of the next value, and its entries or bytes still to come."""
    start = self.file.tell()
    code = self.take(1)[0]
    if code <= 0x7F or code >= 0xE0:
      return "scalar", 0
    if code <= 0x8F:
      return "map", code & 0x0F
    if code <= 0x9F:
      return "list", code & 0x0F
    if code <= 0xBF:
      return "text", code & 0x1F
    if code in _FIXED:
      return "scalar", _FIXED[code]
    if 0xD4 <= code <= 0xD8:
      return "extension", 1 + 2 ** (code - 0xD4)
    if code not in _LENGTH_BYTES:
      raise self.error(
          f"found byte {code:#x} at {start}, expected a msgpack value"
      )
    count = int.from_bytes(self.take(_LENGTH_BYTES[code]), "big")
    kind = _KINDS[code]
    return kind, count + (kind == "extension")

  def value(self, depth: int = 0) -> Tree | Value:
    """The next value: a map's entries, or where another value lies."""
    if depth > _MAX_DEPTH:
      raise self.error(f"found a value nested more than {_MAX_DEPTH} deep")
    start = self.file.tell()
    kind, count = self.header()
    if kind == "map":
      return self.entries(count, depth)
    if kind == "list":
      for _ in range(count):
        self.value(depth + 1)
    else:
      self.need(count)
      self.file.seek(count, 1)
    return Value(kind, start, self.file.tell())

  def entries(self, count: int, depth: int) -> Tree:
    """The `count` entries of a map."""
    tree: Tree = {}
    for _ in range(count):
      key = self.key()
      if key in tree:
        raise self.error(f"found the name {key!r} twice in one map")
      self.path.append(key)
      tree[key] = self.value(depth + 1)
      self.path.pop()
    return tree

  def key(self) -> str:
    """A name."""
    kind, count = self.header()
    if kind not in ("text", "bytes") or count > _MAX_SMALL:
      raise self.error(f"found a {kind} as a name in a map, expected text")
    text = self.take(count).decode(errors="replace")
    # Names are part of messages of one line.
    if not text.isprintable() or "\ufffd" in text:
      raise self.error(f"found the name {text!r}, expected printable text")
    return text

  def small(self) -> Any:
    """Unpacks the next value, which is not skipped because it is small."""
    start = self.file.tell()
    self.value()
    stop = self.file.tell()
    self.file.seek(start)
    data = self.take(stop - start)
    return _unpacked(data) if len(data) <= _MAX_SMALL else None


def read_tree(open_file: Open, name: str) -> Tree:
  """Reads the names in a msgpack file and where their values lie.

  Args:
    open_file: opens it.
    name: the file, for messages.

  Returns:
    The maps, nested as in the file.

  Raises:
    UserError: the file is truncated, or is no msgpack of one map.
  """
  with open_file() as file:
    walker = _Walker(file, name)
    tree = walker.value()
    if not isinstance(tree, dict):
      raise walker.error(f"found a msgpack {tree.kind}, expected a map")
    if file.tell() != walker.size:
      raise walker.error(
          f"found {walker.size - file.tell()} bytes after the msgpack's end at"
          f" byte {file.tell()}"
      )
  return tree


def small_value(open_file: Open, node: Tree | Value) -> Any:
  """Unpacks numbers, text, lists and maps of them; arrays stay unread.

  Args:
    open_file: opens the file.
    node: a part of what `read_tree` returned.

  Returns:
    The Python value, with None for what is too large or is no plain value.
  """
  with open_file() as file:
    return _small_value(file, node)


def _small_value(file: BinaryIO, node: Tree | Value) -> Any:
  if isinstance(node, dict):
    return {name: _small_value(file, part) for name, part in node.items()}
  length = node.stop - node.start
  if length > _MAX_SMALL or node.kind == "extension":
    return None
  file.seek(node.start)
  return _unpacked(file.read(length))


def _unpacked(data: bytes) -> Any:
  try:
    # msgpack leaves extensions as bytes; none of them becomes an object.
    return msgpack.unpackb(data, raw=False, strict_map_key=True)
  except (ValueError, msgpack.UnpackException):
    return None


def is_array(node: Tree | Value) -> bool:
  """Whether a part of a tree is an array that lies in the file."""
  if isinstance(node, dict):
    return _CHUNKED in node
  return node.kind == "extension"


def packed_array(
    open_file: Open, name: str, tensor: str, node: Tree | Value
) -> PackedArray:
  """Finds shape, dtype and bytes of an array.

  Args:
    open_file: opens the file.
    name: the file, for messages.
    tensor: the array, likewise.
    node: the part of the tree for which `is_array` holds.

  Raises:
    UserError: it is no array of Flax's, its dtype is none that a T5 is stored
      in, or its bytes are not as many as its shape needs.
  """
  with open_file() as file:
    walker = _Walker(file, name)
    walker.path = [tensor]
    if isinstance(node, Value):
      return _one_array(walker, node)
    shape = _numbered(small_value(open_file, node.get("shape", {})))
    chunks = _numbered(node.get("chunks"))
    if (
        not _is_shape(shape)
        or not chunks
        or not all(isinstance(chunk, Value) for chunk in chunks)
    ):
      raise walker.error(
          "found a cut array without its shape and chunks, expected Flax's"
          " form"
      )
    pieces = [_one_array(walker, chunk) for chunk in chunks]
    dtypes = sorted({piece.dtype for piece in pieces})
    found = sum(math.prod(piece.shape) for piece in pieces)
    if found != math.prod(shape) or len(dtypes) > 1:
      raise walker.error(
          f"found {found} numbers of {' and '.join(dtypes)} in its chunks,"
          f" expected {math.prod(shape)} of one dtype"
      )
  parts = tuple(part for piece in pieces for part in piece.parts)
  return PackedArray(tuple(shape), dtypes[0], parts)


def _numbered(entries: Any) -> Any:
  """Flax's lists are maps from "0", "1", ... to what they hold."""
  if not isinstance(entries, Mapping):
    return None
  names = [str(i) for i in range(len(entries))]
  return [entries[n] for n in names] if set(names) == set(entries) else None


def _is_shape(found: Any) -> bool:
  return isinstance(found, list) and all(
      type(n) is int and n >= 0 for n in found
  )


def _one_array(walker: _Walker, node: Value) -> PackedArray:
  """Reads the head of an array that lies in one piece."""
  file = walker.file
  file.seek(node.start)
  walker.header()
  kind = walker.take(1)[0]
  if kind not in _ARRAY_TYPES or walker.header() != ("list", 3):
    raise walker.error(
        f"found a msgpack extension of type {kind}, expected an array"
    )
  shape = walker.small()
  dtype = walker.key()
  data_kind, count = walker.header()
  data = file.tell()
  if (
      not _is_shape(shape)
      or data_kind not in ("bytes", "text")
      or data + count != node.stop
  ):
    raise walker.error("found no shape, dtype and bytes, expected an array")
  leaves.check_dtype(walker.name, walker.path[0], dtype)
  expected = math.prod(shape) * np.dtype(dtype).itemsize
  if count != expected:
    raise walker.error(
        f"found {count} bytes, expected {expected} for {tuple(shape)} {dtype}"
    )
  return PackedArray(tuple(shape), dtype, ((data, count),))


def read_array(open_file: Open, array: PackedArray) -> np.ndarray | None:
  """Reads an array whole.

  Args:
    open_file: opens the file.
    array: what `packed_array` found.

  Returns:
    The array, or None if the file has become shorter since then.
  """
  flat = np.empty(sum(count for _, count in array.parts), np.uint8)
  done = 0
  with open_file() as file:
    for start, count in array.parts:
      file.seek(start)
      part = memoryview(flat.data)[done : done + count]
      # A raw file may give less than asked for.
      while part:
        # Every binary file has it; its abstract type does not say so.
        got = file.readinto(part)  # type: ignore[attr-defined]
        if not got:
          return None
        part = part[got:]
      done += count
  return flat.view(array.dtype).reshape(array.shape)
