"""Finds the tensors of a Hugging Face folder: one file, or an index and shards.

Names are those of the files; `huggingface.py` translates them. Nothing is read
here that the folder does not hold: an index that points elsewhere is refused.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import hashlib
import pathlib
import re
from typing import Any, BinaryIO

from xprompt_jax import artifacts
from xprompt_jax.types import UserError
from xprompt_jax.weights import safetensors_file, torch_file
from xprompt_jax.weights.leaves import Leaf

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
INDEX = ".index.json"

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 2**20
_LFS_POINTER = b"version https://git-lfs"
# Names printed of files that do not agree; the rest is counted.
_NAMES_SHOWN = 3

# Opens a file, given whether its checksum has been compared.
_Open = Callable[[pathlib.Path, bool], dict[str, Leaf]]


def listed(names: Iterable[str]) -> str:
  """The first few names, sorted, and how many more there are."""
  ordered = sorted(names)
  more = len(ordered) - _NAMES_SHOWN
  shown = ", ".join(ordered[:_NAMES_SHOWN])
  return f"{shown} and {more} more" if more > 0 else shown


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[BinaryIO]:
  try:
    with open(file, "rb") as f:
      yield f
  except OSError as e:
    raise UserError(f"{file}: cannot read: {e.strerror or e}") from e


def check_blob(file: pathlib.Path) -> bool:
  """Compares a file of the hub's cache with the checksum that is its name.

  The cache keeps a file under the sha256 of its contents, or under git's sha1
  if it is small, and snapshots link to it. One pass over the file.

  Args:
    file: any file.

  Returns:
    Whether it has been compared; other folders have no checksums.

  Raises:
    UserError: the contents are not those the name says, or cannot be read.
  """
  target = file.resolve()
  if target.parent.name != "blobs":
    return False
  if _SHA256.fullmatch(target.name):
    digest = hashlib.sha256()
  elif _SHA1.fullmatch(target.name):
    # Git's own header is part of what it hashes.
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(f"blob {target.stat().st_size}\0".encode())
  else:
    return False
  with _opened(file) as f:
    while chunk := f.read(_CHUNK_BYTES):
      digest.update(chunk)
  if digest.hexdigest() != target.name:
    raise UserError(
        f"{file}: contents have {digest.name} {digest.hexdigest()[:12]},"
        f" expected {target.name[:12]}: the file in the cache is damaged;"
        " remove it and fetch it again"
    )
  return True


def read_tensors(folder: pathlib.Path) -> dict[str, Leaf]:
  """Opens the weights of a folder; safetensors are preferred.

  Files in the hub's cache are compared with their checksums, once, here; those
  of torch have checksums of their own. A safetensors file elsewhere has none:
  damage in its weights cannot be found.

  Args:
    folder: with `model.safetensors` or `pytorch_model.bin`, or the index and
      the shards of one of them.

  Returns:
    Tensors by name, shaped as stored.

  Raises:
    UserError: a file is missing, damaged or outside the folder, or index and
      shards do not agree.
  """
  reader = torch_file.Reader()

  def open_torch(file: pathlib.Path, checked: bool) -> dict[str, Leaf]:
    return reader.open_file(file, checked=checked)

  formats: tuple[tuple[str, _Open], ...] = (
      (SAFETENSORS, lambda file, checked: safetensors_file.open_file(file)),
      (TORCH, open_torch),
  )
  for name, open_file in formats:
    single, index = folder / name, folder / (name + INDEX)
    if single.exists():
      return open_file(single, _check_contents(single))
    if index.exists():
      return _read_shards(index, open_file)
  expected = [n + suffix for n, _ in formats for suffix in ("", INDEX)]
  raise UserError(
      f"{folder}: found no weights, expected one of {', '.join(expected)}"
  )


def _check_contents(file: pathlib.Path) -> bool:
  with _opened(file) as f:
    if f.read(len(_LFS_POINTER)) == _LFS_POINTER:
      raise UserError(
          f"{file}: found a pointer of Git LFS, expected the file itself: run"
          " `git lfs pull`"
      )
  return check_blob(file)


def _read_shards(index: pathlib.Path, open_file: _Open) -> dict[str, Leaf]:
  check_blob(index)
  weight_map = _weight_map(index)
  shards = sorted(set(weight_map.values()))
  missing = [name for name in shards if not (index.parent / name).exists()]
  if missing:
    raise UserError(
        f"{index}: found no {listed(missing)}, expected all"
        f" {len(shards)} shards in its folder"
    )
  tensors = {}
  for shard in shards:
    file = index.parent / shard
    found = open_file(file, _check_contents(file))
    stated = {n for n, where in weight_map.items() if where == shard}
    if stated - found.keys():
      raise UserError(
          f"{file}: {listed(stated - found.keys())}: missing, expected what"
          f" {index.name} lists"
      )
    if found.keys() - stated:
      raise UserError(
          f"{file}: {listed(found.keys() - stated)}: found, expected only what"
          f" {index.name} lists"
      )
    tensors.update(found)
  return tensors


def _weight_map(index: pathlib.Path) -> dict[str, str]:
  weight_map: Any = artifacts.read_json(index).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise UserError(
        f"{index}: weight_map: found {weight_map!r}, expected the file of each"
        " tensor"
    )
  for tensor, name in weight_map.items():
    if not isinstance(name, str) or not name:
      raise UserError(
          f"{index}: weight_map: {tensor}: found {name!r}, expected a file name"
      )
    # Separators of both kinds: an index may come from anywhere.
    if name in (".", "..") or re.search(r"[/\\:\0]", name):
      raise UserError(
          f"{index}: weight_map: {tensor}: {name!r} points outside the folder,"
          " expected the name of a file in it"
      )
  return weight_map
