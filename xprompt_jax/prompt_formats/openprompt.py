"""OpenPrompt's soft template: the tensor `soft_embeds` [P, H].

`SoftTemplate` (thunlp/OpenPrompt, openprompt/prompts/soft_template.py) puts
this parameter in front of the embedded inputs. People save the state dict of
the template, of the whole prompt model, or a trainer's checkpoint around one;
the tensor's name ends the same way in all of them.
"""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

import numpy as np

from xprompt_jax.prompt_formats import torch_file
from xprompt_jax.prompt_formats.arrays import listed
from xprompt_jax.types import UserError

FILE = "soft_embeds.pt"
TENSOR = "soft_embeds"


def _named(state: Mapping[str, Any]) -> Iterator[str]:
  for name in state:
    if isinstance(name, str) and name.rpartition(".")[2] == TENSOR:
      yield name


def from_state(path: pathlib.Path, state: Any) -> dict[str, np.ndarray]:
  """The prompt in what a torch file holds.

  Args:
    path: the file, for messages.
    state: from `torch_file.read`: a tensor, a state dict, or a trainer's
      checkpoint with a `state_dict`.

  Returns:
    `prompt`, whatever its shape.

  Raises:
    UserError: there is no such tensor, or more than one.
  """
  if isinstance(state, Mapping) and isinstance(
      state.get("state_dict"), Mapping
  ):
    state = state["state_dict"]
  if not isinstance(state, Mapping):
    return {"prompt": torch_file.to_array(path, TENSOR, state)}
  names = list(_named(state))
  if len(names) != 1:
    raise UserError(
        f"{path}: found {listed(names or state)}, expected one tensor whose"
        " name ends in 'soft_embeds' (OpenPrompt), or 'prompt_embeddings'"
        " (PEFT)"
    )
  return {"prompt": torch_file.to_array(path, names[0], state[names[0]])}


def write(path: pathlib.Path, prompt: np.ndarray) -> None:
  """Writes one prompt [P, H] as a state dict of `SoftTemplate`.

  Raises:
    UserError: torch is not installed.
  """
  torch_file.write(path, {TENSOR: np.asarray(prompt, np.float32)})
