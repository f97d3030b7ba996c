"""What every layer shares: the masks of a prompt table and the user's errors.

Axes used in every docstring and shape comment of the package: R rows
(tickets), B examples, T input tokens, P prompt tokens, S = P + T, L target
tokens, H embedding, K pieces per token, V vocabulary.
"""

from collections.abc import Mapping
import math
from typing import Any

from flax import struct
from jax import Array
import numpy as np

from xprompt_jax.errors import UserError as UserError
from xprompt_jax.errors import mendable as mendable

# Where both JAX's arrays and NumPy's are welcome.
AnyArray = Array | np.ndarray

# T5X's keys: encoder_input_tokens [B, T], decoder_input_tokens [B, L],
# decoder_target_tokens [B, L], decoder_loss_weights [B, L].
Batch = Mapping[str, Array]


@struct.dataclass
class PromptMasks:
  """Which prompt tokens and which of their pieces are kept: 1 keep, 0 pruned.

  A piece mask is 0 wherever its token's mask is.
  """

  # Any: JAX fills pytrees with tracers, shapes and placeholders as well.
  token_mask: Any  # Array [R, P], the paper's gamma
  piece_mask: Any  # Array [R, P, K], the paper's zeta
  # Array [R, P]: 0 at the positions that a shorter prompt of the table lacks,
  # in front of its own. They are hidden from attention, and positions are
  # relative, so the row computes what it computes in a table of its length.
  # None: every row has all P.
  present: Any = None


def require(condition: bool, name: str, found: Any, expected: str) -> None:
  """Raises a `UserError` naming the thing, unless the condition holds."""
  if not condition:
    raise UserError(f"{name}: found {found!r}, expected {expected}")


def require_int(name: str, found: Any, least: int) -> None:
  """Raises a `UserError` unless `found` is an integer of at least `least`."""
  is_int = isinstance(found, int) and not isinstance(found, bool)
  require(is_int and found >= least, name, found, f"an integer >= {least}")


def require_number(
    name: str, found: Any, least: int | float, *, exclusive: bool = False
) -> None:
  """Raises a `UserError` unless `found` is a number not below `least`."""
  is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
  is_number = is_number and math.isfinite(found)
  above = is_number and (found > least if exclusive else found >= least)
  sign = ">" if exclusive else ">="
  require(above, name, found, f"a number {sign} {least}")
