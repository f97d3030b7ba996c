"""The formats a prompt can be written in: the one table of them.

Names come from `flags.py`, which imports nothing; all else about a format that
another module asks for is here.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib

import numpy as np

from xprompt_jax import flags
from xprompt_jax.prompt_formats import compact, native, npy, openprompt, peft
from xprompt_jax.prompt_formats.arrays import AXES
from xprompt_jax.types import PromptMasks

_MASKS = ("token_mask", "piece_mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """One format.

  Attributes:
    file: the name of its prompt file in an export's folder.
    keeps: which arrays of `arrays.AXES` that file holds.
    write: writes them, all with rows, at a path that ends in `file`; given the
      frozen model too, of which an adapter speaks.
    many_prompts: whether R may be more than 1.
    needs_torch: whether PyTorch writes it.
  """

  file: str
  keeps: tuple[str, ...]
  write: Callable[
      [pathlib.Path, Mapping[str, np.ndarray], peft.BaseModel], None
  ]
  many_prompts: bool = False
  needs_torch: bool = False

  @property
  def keeps_masks(self) -> bool:
    """Whether pruned tokens can be told from kept ones."""
    return set(_MASKS) <= set(self.keeps)


_FORMATS = {
    "peft": Format(
        file=peft.FILE,
        keeps=("prompt",),
        write=lambda path, arrays, base: peft.write(
            path.parent, arrays["prompt"][0], base
        ),
    ),
    "npy": Format(
        file=npy.FILE,
        keeps=("prompt",),
        write=lambda path, arrays, _: npy.write(path, arrays["prompt"][0]),
    ),
    "safetensors": Format(
        file=native.FILE,
        keeps=tuple(AXES),
        write=lambda path, arrays, _: native.write(
            path, {name: array[0] for name, array in arrays.items()}
        ),
    ),
    "openprompt": Format(
        file=openprompt.FILE,
        keeps=("prompt",),
        write=lambda path, arrays, _: openprompt.write(
            path, arrays["prompt"][0]
        ),
        needs_torch=True,
    ),
    "compact": Format(
        file=compact.FILE,
        keeps=("prompt", *_MASKS),
        write=lambda path, arrays, _: compact.write(
            path,
            arrays["prompt"],
            PromptMasks(**{name: arrays[name] for name in _MASKS}),
        ),
        many_prompts=True,
    ),
}
FORMATS = {name: _FORMATS[name] for name in flags.PROMPT_FORMATS}
