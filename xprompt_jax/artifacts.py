"""The files a run leaves behind: their names, how they are written and read.

Everything is written to a temporary name in the same folder and renamed, so a
file is either whole or not there. A stage's `result.json` is written last: it
is the mark that the stage is done. Without JAX, so that `t5x report` is.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
from typing import Any

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from xprompt_jax.errors import UserError

RESULT = "result.json"
RUN = "run.json"
CONFIG = "config.gin"
PROMPT = "prompt.safetensors"
MASKS = "masks.safetensors"
SCORES = "scores.safetensors"
METRICS = "metrics.jsonl"
STATE = "state/state.safetensors"
STARTED = "state/config.json"
TICKETS = "tickets.jsonl"
CACHE = "cache"
TENSORBOARD = "tensorboard"

TUNE = "tune"
REWIND = "rewind"
EVALUATE = "evaluate"
INFER = "infer"
SCORE = "score"

_SHA256 = "sha256"  # Of a safetensors file's metadata.
_PACKAGES = ("xprompt-jax", "jax", "jaxlib", "flax", "optax", "numpy")


def score_folder(granularity: str) -> str:
  """The folder of a scoring stage: `score_token` or `score_piece`."""
  return f"score_{granularity}"


def prune_folder(granularity: str) -> str:
  """The folder of a pruning stage: `prune_token` or `prune_piece`."""
  return f"prune_{granularity}"


def search_folder(name: str) -> str:
  """The folder where the tickets of one search table are trained."""
  return f"search_{name}"


def package_versions() -> dict[str, str]:
  """What a run computes with: installed versions by name."""
  found = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary path that becomes `path` if the block ends well.

  Raises:
    UserError: the folder cannot be written, or the disk is full.
  """
  temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    with open(temporary, "rb") as f:
      os.fsync(f.fileno())
    os.replace(temporary, path)
  except OSError as e:
    raise UserError(f"{path}: cannot write: {e.strerror or e}") from e
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole text file, or leaves the old one."""
  with replacing(path) as temporary:
    temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON object, keys in the order given."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes one JSON object a line."""
  write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    UserError: the file is missing, is not JSON or holds no object.
  """
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except OSError as e:
    raise UserError(f"{path}: cannot read: {e.strerror or e}") from e
  except (RecursionError, ValueError) as e:
    raise UserError(f"{path}: not JSON: {e}") from e
  if not isinstance(value, dict):
    raise UserError(
        f"{path}: found a {type(value).__name__}, expected an object"
    )
  return value


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads one JSON object a line; a file that is missing has none.

  Raises:
    UserError: a line is not JSON.
  """
  if not path.exists():
    return []
  rows = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    try:
      rows.append(json.loads(line))
    except (RecursionError, ValueError) as e:
      raise UserError(f"{path}, line {number}: not JSON: {e}") from e
  return rows


def digest_arrays(arrays: Mapping[str, Any]) -> str:
  """sha256 over the names, dtypes, shapes and contents of arrays, by name."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = arrays[name]
    digest.update(f"{name}:{array.dtype}:{array.shape}:".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def digest_metadata(arrays: Mapping[str, Any]) -> dict[str, str]:
  """What a safetensors file states of its tensors: the sha256 of each.

  One entry, whose value is a JSON object: the library writes several entries in
  a random order.
  """
  digests = {name: digest_arrays({name: arrays[name]}) for name in arrays}
  return {_SHA256: json.dumps(digests, sort_keys=True)}


def save_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes arrays as safetensors, with the sha256 of each in the metadata."""
  # Not ascontiguousarray, which gives a number an axis.
  arrays = {k: np.asarray(v, order="C") for k, v in arrays.items()}
  content = safetensors_numpy.save(arrays, digest_metadata(arrays))
  with replacing(path) as temporary:
    temporary.write_bytes(content)


@contextlib.contextmanager
def opened_arrays(path: pathlib.Path) -> Iterator[Any]:
  """Opens a safetensors file, of which parts can be read.

  Raises:
    UserError: the file is missing or is not safetensors.
  """
  try:
    with safetensors.safe_open(path, framework="numpy") as f:
      yield f
  except OSError as e:
    raise UserError(f"{path}: cannot read: {e.strerror or e}") from e
  except safetensors.SafetensorError as e:
    raise UserError(f"{path}: not a whole safetensors file: {e}") from e


def check_digest(
    path: pathlib.Path,
    metadata: Mapping[str, str],
    arrays: Mapping[str, Any],
) -> None:
  """Refuses arrays that lack the sha256 that their file states of them.

  Args:
    path: the file.
    metadata: the file's; other programs' state no sha256, and older files one
      over all of their arrays.
    arrays: what was read.

  Raises:
    UserError: another sha256; names the tensor where each has its own.
  """
  stated = metadata.get(_SHA256)
  if stated is None:
    return
  if not stated.startswith("{"):
    require_digest(str(path), digest_arrays(arrays), stated)
    return
  try:
    expected = json.loads(stated)
  except ValueError as e:
    raise UserError(
        f"{path}: sha256 of its tensors: not JSON: the file is damaged"
    ) from e
  for name in sorted(expected.keys() | set(arrays)):
    found = digest_arrays({name: arrays[name]}) if name in arrays else "none"
    require_digest(f"{path}: {name}", found, expected.get(name, "none"))


def require_digest(where: str, found: str, expected: object) -> None:
  """Refuses a file, or a tensor of it, that has another sha256."""
  if found != expected:
    raise UserError(
        f"{where}: contents have sha256 {found[:12]}, expected"
        f" {str(expected)[:12]}: the file is damaged"
    )


def _tensor(path: pathlib.Path, file: Any, name: str) -> np.ndarray:
  try:
    return file.get_tensor(name)
  except AttributeError as e:  # NumPy has no such dtype.
    found = file.get_slice(name).get_dtype()
    raise UserError(
        f"{path}: {name}: found dtype {found}, expected one that NumPy has"
    ) from e


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads what `save_arrays` wrote, or any safetensors file.

  Raises:
    UserError: the file is missing, is not safetensors, or its contents do not
      have the sha256 its metadata states, or a dtype that NumPy has.
  """
  with opened_arrays(path) as f:
    # The file is no mapping: it has keys() and cannot be iterated.
    arrays = {name: _tensor(path, f, name) for name in f.keys()}  # noqa: SIM118
    check_digest(path, f.metadata() or {}, arrays)
  return arrays


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      field = f"{name}.{key}" if name else key
      yield from _differences(old.get(key), new.get(key), field)
  elif old != new:
    yield f"{name} is {old!r} there and {new!r} now"


def finished_result(
    folder: pathlib.Path, config: Mapping[str, Any]
) -> dict[str, Any] | None:
  """The result of a stage that is done, or None if it has to run.

  Args:
    folder: the stage's folder.
    config: the stage's JSON-able config.

  Returns:
    What `result.json` holds.

  Raises:
    UserError: the stage was done with another config; names the difference.
  """
  path = folder / RESULT
  if not path.exists():
    return None
  result = read_json(path)
  check_config(path, result.get("config"), config)
  return result


def check_config(path: pathlib.Path, old: Any, new: Mapping[str, Any]) -> None:
  """Refuses to go on in a folder that belongs to another config.

  Args:
    path: the file that recorded the old config.
    old: what it recorded.
    new: the JSON-able config of this run.

  Raises:
    UserError: they differ; names the first difference.
  """
  # Through JSON, so that tuples and lists compare equal.
  new = json.loads(json.dumps(new, allow_nan=False))
  for difference in _differences(old or {}, new):
    raise UserError(
        f"{path}: belongs to another config: {difference}; expected the same"
        " config, or another --workdir"
    )
