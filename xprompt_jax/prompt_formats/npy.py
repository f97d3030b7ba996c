"""NumPy's own file of one prompt, [P, H].

google-research/prompt-tuning releases its prompts so, and saves them so beside
its checkpoints (`numpy_checkpoints/checkpoint_*/encoder.prompt.prompt.prompt`,
a file without a suffix).
"""

import pathlib
import tokenize

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.types import UserError

FILE = "prompt.npy"
MAGIC = b"\x93NUMPY"


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads `prompt`, whatever its shape.

  Raises:
    UserError: the file is missing or damaged, or holds Python objects.
  """
  try:
    with open(path, "rb") as f:
      # Not np.load, which opens archives and pickles under that name as well.
      array = np.lib.format.read_array(f, allow_pickle=False)
      rest = len(f.read(1))
  except OSError as e:
    raise UserError(f"{path}: cannot read: {e.strerror or e}") from e
  except tokenize.TokenError as e:
    raise UserError(
        f"{path}: not a whole .npy file: Cannot parse header"
    ) from e
  except (
      MemoryError,
      OverflowError,
      RecursionError,
      SyntaxError,
      TypeError,
      ValueError,
  ) as e:
    message = " ".join(str(e).split())
    # Python's parser, run over the header, may give up without a word.
    if isinstance(e, (MemoryError, RecursionError)):
      message = f"{type(e).__name__}: {message}".removesuffix(": ")
    raise UserError(f"{path}: not a whole .npy file: {message}") from e
  if rest:
    raise UserError(
        f"{path}: not a whole .npy file: found more bytes than the"
        f" {array.shape} of its header take"
    )
  return {"prompt": array}


def write(path: pathlib.Path, prompt: np.ndarray) -> None:
  """Writes one prompt [P, H] as float32."""
  with artifacts.replacing(path) as temporary, open(temporary, "wb") as f:
    np.save(f, np.asarray(prompt, np.float32), allow_pickle=False)
