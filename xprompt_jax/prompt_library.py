"""Several prompts in one table, whatever their lengths and pieces.

A table has one P and one K; a library has neither. Its prompts are multiplied
by their masks here, and shorter ones are padded at the LEFT up to the longest.
The pad is a pruned token under `pruned_tokens="ignore"`: no attention sees it,
and T5 knows no positions but relative ones, so all that is seen stands where
it would stand without the pad. `stored_prompts.py` reads the files,
`inference.py` answers with the table.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import stored_prompts
from xprompt_jax.experiment import ExperimentConfig
from xprompt_jax.model import PromptedT5
from xprompt_jax.prompt_formats import places
from xprompt_jax.types import AnyArray, PromptMasks, UserError

_FORM = "NAME=PATH or NAME=PATH#ROW"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPrompt:
  """One `--prompt=NAME=PATH#ROW`.

  Attributes:
    flag: as it was given, for messages.
    path: what `stored_prompts.read_prompts` reads.
    row: which of the prompts there.
  """

  flag: str
  path: str
  row: int


def parse_named_prompts(values: Sequence[str]) -> dict[str, NamedPrompt]:
  """Splits `NAME=PATH` and `NAME=PATH#ROW`.

  Args:
    values: of the flag; what follows the last # of a path is a row, so a path
      that has one needs its row.

  Returns:
    Prompts by name, in the order given.

  Raises:
    UserError: another form, or a name that is given twice.
  """
  found: dict[str, NamedPrompt] = {}
  for value in values:
    flag = f"--prompt={value}"
    name, _, place = value.partition("=")
    path, row = places.split_row(place, prefix=f"--prompt={name}=", form=_FORM)
    if not name or not path:
      raise UserError(f"{flag}: found no name and path, expected {_FORM}")
    if name in found:
      raise UserError(
          f"{flag}: found the name {name!r} a second time after"
          f" {found[name].flag}, expected each name once"
      )
    found[name] = NamedPrompt(flag=flag, path=path, row=row or 0)
  return found


def read_library(
    named: Mapping[str, NamedPrompt], config: ExperimentConfig
) -> list[tuple[np.ndarray, PromptMasks]]:
  """Reads the prompts of a library, each file once.

  Args:
    named: from `parse_named_prompts`.
    config: H comes from here, and K where a file has no piece masks.

  Returns:
    For each name its prompt [P, H], unmasked, and masks [P] and [P, K].

  Raises:
    UserError: a file that cannot be read, or a row it does not have.
  """
  files = {
      path: stored_prompts.read_prompts(path, config)
      for path in dict.fromkeys(entry.path for entry in named.values())
  }
  return [
      take_prompt(*files[entry.path], entry.path, entry.row, entry.flag)
      for entry in named.values()
  ]


def take_prompt(
    prompt: Float[np.ndarray, "R P H"],
    masks: PromptMasks,
    path: str,
    row: int,
    flag: str | None = None,
) -> tuple[np.ndarray, PromptMasks]:
  """One prompt of a file: [P, H], with masks [P] and [P, K].

  P is its own, where it is shorter than others of the file.

  Args:
    prompt: [R, P, H].
    masks: [R, P] and [R, P, K].
    path: of the file.
    row: which of the R.
    flag: what named it, for messages; None means `--row`.

  Raises:
    UserError: a row that the file does not have.
  """
  stored_prompts.check_row(row, path, len(prompt), flag)
  taken = masks_lib.take_rows(masks, np.array(row))
  return masks_lib.without_absent(prompt[row], taken)


def join_prompts(
    library: Sequence[tuple[Float[AnyArray, "_ H"], PromptMasks]],
    model: PromptedT5,
) -> tuple[Float[np.ndarray, "R P H"], PromptMasks, PromptedT5]:
  """One table of prompts that differ in length and in pieces.

  Args:
    library: R prompts [P, H], unmasked, with masks [P] and [P, K]; P and K are
      each one's own.
    model: says whether pruned tokens are seen.

  Returns:
    The prompts [R, P, H] with the P of the longest, multiplied by their masks;
    masks [R, P] and [R, P, 1] that are 0 where nothing may look; and the model
    for this table, which ignores what these masks prune.
  """
  longest = max(len(prompt) for prompt, _ in library)
  embed_dim = library[0][0].shape[1]
  table = np.zeros((len(library), longest, embed_dim), np.float32)
  visible = np.zeros((len(library), longest), np.float32)
  for row, (prompt, masks) in enumerate(library):
    start = longest - len(prompt)
    table[row, start:] = masks_lib.apply_masks(prompt, masks)
    one = jax.tree.map(lambda mask: jnp.asarray(mask)[None], masks)
    visible[row, start:] = model.prompt_visible(one)[0]
  masks = PromptMasks(token_mask=visible, piece_mask=visible[..., None])
  return table, masks, dataclasses.replace(model, pruned_tokens="ignore")
