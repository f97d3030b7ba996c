"""Finds the tensors of a Hugging Face folder: one file, or an index and shards.

Names are those of the files; `huggingface.py` translates them. Nothing is read
here that the folder does not hold: an index that points elsewhere is refused.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import functools
import hashlib
import os
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
_BLOBS = "blobs"
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


def check_place(file: pathlib.Path) -> None:
  """Refuses a link that leads out of its folder.

  The hub's cache is let pass: models--X/snapshots/REVISION/NAME links to
  models--X/blobs/CHECKSUM.

  Args:
    file: a file that exists.

  Raises:
    UserError: it lies neither in its folder nor in those blobs.
  """
  folder = pathlib.Path(os.path.realpath(file.parent))
  target = pathlib.Path(os.path.realpath(file))
  if target.is_relative_to(folder):
    return
  snapshots = folder.parent
  is_cache = snapshots.name == "snapshots"
  if not is_cache or target.parent != snapshots.parent / _BLOBS:
    raise UserError(
        f"{file}: points outside its folder, to {target}; expected the file"
        " itself, or a link into the hub's cache as a snapshot there has it"
    )


def check_blob(file: pathlib.Path) -> bool:
  """Compares a file of the hub's cache with the checksum that is its name.

  The cache keeps a file under the sha256 of its contents, or under git's sha1
  if it is small, and snapshots link to it. One pass over the file; a process
  that asks again is answered at once, as long as the file has the same size and
  time.

  Args:
    file: any file.

  Returns:
    Whether it has been compared; other folders have no checksums.

  Raises:
    UserError: the contents are not those the name says, or cannot be read.
  """
  target = pathlib.Path(os.path.realpath(file))
  is_named = _SHA256.fullmatch(target.name) or _SHA1.fullmatch(target.name)
  if target.parent.name != _BLOBS or not is_named:
    return False
  with _opened(file) as f:
    status = os.fstat(f.fileno())
  kind, found = _digest(target, status.st_size, status.st_mtime_ns)
  if found != target.name:
    raise UserError(
        f"{file}: contents have {kind} {found[:12]}, expected"
        f" {target.name[:12]}: the file in the cache is damaged; remove it and"
        " fetch it again"
    )
  return True


@functools.cache
def _digest(target: pathlib.Path, size: int, mtime_ns: int) -> tuple[str, str]:
  """The kind of checksum that a blob is named after, and that of its contents.

  Args:
    target: the blob.
    size: in bytes.
    mtime_ns: another time is another question.
  """
  if _SHA256.fullmatch(target.name):
    digest = hashlib.sha256()
  else:
    # Git's own header is part of what it hashes.
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(f"blob {size}\0".encode())
  with _opened(target) as f:
    while chunk := f.read(_CHUNK_BYTES):
      digest.update(chunk)
  return digest.name, digest.hexdigest()


def read_tensors(
    folder: pathlib.Path, *, check: bool = True
) -> dict[str, Leaf]:
  """Opens the weights of a folder; safetensors are preferred.

  Files in the hub's cache are compared with their checksums here; those of
  torch have checksums of their own. A safetensors file elsewhere has none:
  damage in its weights cannot be found.

  Args:
    folder: with `model.safetensors` or `pytorch_model.bin`, or the index and
      the shards of one of them.
    check: whether checksums are compared; where names alone are looked at they
      need not be.

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
      return open_file(single, check_contents(single, check))
    if index.exists():
      return _read_shards(index, open_file, check)
  expected = [n + suffix for n, _ in formats for suffix in ("", INDEX)]
  raise UserError(
      f"{folder}: found no weights, expected one of {', '.join(expected)}"
  )


def check_contents(file: pathlib.Path, check: bool = True) -> bool:
  """Refuses a link out of the folder, a pointer of Git LFS and a damaged blob.

  Args:
    file: a file that exists.
    check: whether its checksum is compared, where the cache has one.

  Returns:
    Whether it needs no other check of its contents.

  Raises:
    UserError: it is one of these, or cannot be read.
  """
  check_place(file)
  with _opened(file) as f:
    if f.read(len(_LFS_POINTER)) == _LFS_POINTER:
      raise UserError(
          f"{file}: found a pointer of Git LFS, expected the file itself: run"
          " `git lfs pull`"
      )
  return check_blob(file) if check else True


def _read_shards(
    index: pathlib.Path, open_file: _Open, check: bool
) -> dict[str, Leaf]:
  check_place(index)
  check_blob(index)
  weight_map = _weight_map(index)
  shards = sorted(set(weight_map.values()))
  # Not Path.exists, which raises where a name is too long.
  missing = [n for n in shards if not os.path.exists(index.parent / n)]
  if missing:
    raise UserError(
        f"{index}: found no {listed(missing)}, expected all"
        f" {len(shards)} shards in its folder"
    )
  tensors = {}
  for shard in shards:
    file = index.parent / shard
    found = open_file(file, check_contents(file, check))
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
