"""What is stored of a row while it is trained: T5X's checkpoint and records."""

from collections.abc import Mapping
import contextlib
import pathlib
import re
import shutil

import jax
import numpy as np
import tensorflow as tf

from xprompt_jax import artifacts
from xprompt_jax.records import Records
from xprompt_jax.t5x_engine import names
from xprompt_jax.t5x_engine.one_prompt import OnePrompt
from xprompt_jax.types import PromptMasks, UserError
from xprompt_jax.weights import t5x_storage

_CHECKPOINT = re.compile(r"checkpoint_(\d+)")
# Of the sha256 of each array of T5X's checkpoint, among the records.
_SHA256 = "sha256/"
# The disk, the memory or the rights, not what is stored.
_OF_THE_MACHINE = re.compile(r"(RESOURCE_EXHAUSTED|PERMISSION_DENIED)\b")


class RowState:
  """The files in `state/row_R/`.

  `records_STEP.safetensors` is written before T5X's `checkpoint_STEP` and removed
  after the next, so every whole checkpoint has its records. They have the sha256
  of its arrays: T5X reads zeros where a part of its own files is gone.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder

  def step(self) -> int:
    """The steps after which the last whole checkpoint was saved; 0 without."""
    found = self.folder.glob("checkpoint_*")
    matches = [_CHECKPOINT.fullmatch(path.name) for path in found]
    return max((int(m.group(1)) for m in matches if m), default=0)

  def records(self, step: int) -> pathlib.Path:
    """The file of the records after so many steps."""
    return self.folder / f"records_{step}.safetensors"

  def checkpoint(self, step: int) -> pathlib.Path:
    """T5X's folder after so many steps."""
    return self.folder / f"checkpoint_{step}"

  def clean(self, step: int) -> None:
    """Removes all but one step's files: a run was stopped while it saved."""
    for path in self.folder.glob("checkpoint_*"):
      if path != self.checkpoint(step):
        shutil.rmtree(path)
    for path in self.folder.glob("records_*.safetensors"):
      if path != self.records(step):
        path.unlink()

  def save(self, one: OnePrompt, records: Records, step: int) -> None:
    """Saves a row, then removes what was saved before.

    Raises:
      UserError: it cannot be written; what was saved before is kept.
    """
    artifacts.save_arrays(
        self.records(step), {**records.arrays(), **_digests(one.state)}
    )
    try:
      one.save(self.folder)
    except (*t5x_storage.ERRORS, tf.errors.OpError) as e:
      if isinstance(e, jax.errors.JaxRuntimeError):
        raise
      # Half a checkpoint may be what fills the disk.
      for path in self.folder.glob(f"checkpoint_{step}.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
      with contextlib.suppress(OSError):
        self.records(step).unlink()
      raise UserError(
          f"{self.checkpoint(step)}: cannot write: {_reason(e)}"
      ) from e
    self.clean(step)

  def restore(
      self,
      one: OnePrompt,
      step: int,
      seed: int,
      stored: Mapping[str, np.ndarray],
      masks: PromptMasks,
  ) -> None:
    """Goes on from a checkpoint.

    Args:
      one: is given the prompt.
      step: of the checkpoint.
      seed: of dropout.
      stored: the contents of its records.
      masks: of the row, [P] and [P, K].

    Raises:
      UserError: T5X cannot read it, or it is not what was saved, or is of other
        masks.
    """
    path = self.checkpoint(step)
    afresh = f"; without {self.folder} the row is trained afresh"
    try:
      one.restore(self.folder, step, seed)
    except (OSError, MemoryError, jax.errors.JaxRuntimeError):
      raise
    except Exception as e:  # T5X and what it reads with have many.
      if isinstance(e, tf.errors.OpError) or _OF_THE_MACHINE.match(str(e)):
        raise UserError(f"{path}: cannot read: {_reason(e)}") from e
      reason = str(e).strip().partition("\n")[0]
      raise UserError(
          f"{path}: T5X cannot read it ({type(e).__name__}: {reason}), expected"
          f" what it wrote{afresh}"
      ) from e
    found = _digests(one.state)
    saved = {n for n in stored if n.startswith(_SHA256)}
    for name in sorted(found.keys() | saved):
      if not np.array_equal(found.get(name, 0), stored.get(name, 1)):
        raise UserError(
            f"{path}: {name.removeprefix(_SHA256)}: contents have another sha256"
            f" than {self.records(step)} states: the checkpoint is damaged"
            f"{afresh}"
        )
    _check_masks(path, one, masks)


def _check_masks(
    path: pathlib.Path, one: OnePrompt, masks: PromptMasks
) -> None:
  for name, expected in (
      (names.TOKEN_MASK, masks.token_mask),
      (names.PIECE_MASK, masks.piece_mask),
  ):
    if not np.array_equal(one.state[f"target/{name}"], expected):
      raise UserError(
          f"{path}: target/{name}: found another mask, expected that of the"
          " row's ticket"
      )


def _digests(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The sha256 of each array, as 32 bytes."""
  return {
      f"{_SHA256}{name}": np.frombuffer(
          bytes.fromhex(artifacts.digest_arrays({name: array})), np.uint8
      )
      for name, array in arrays.items()
  }


def _reason(error: Exception) -> str:
  if isinstance(error, OSError):
    return error.strerror or str(error)
  if isinstance(error, tf.errors.OpError):
    return str(error.message)
  return t5x_storage.reason(error)
