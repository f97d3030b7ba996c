"""What T5X is told about restoring a checkpoint that may lack a prompt.

T5X fills what a checkpoint does not have from its initialiser, once
`fallback_to_scratch` is set, without a word. `check_frozen` leaves it the prompt
alone. `prompt_from` decides, for evaluation and inference, whether a prompt in the
checkpoint counts; training uses T5X's own `assignment_map`.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from xprompt_jax.t5x_engine import names
from xprompt_jax.types import UserError

_SHOWN = 3


def check_frozen(
    checkpoint_state: Mapping[str, Any],
    model_state: Mapping[str, Any],
    *,
    is_resuming: bool = False,
) -> Mapping[str, Any]:
  """A `state_transformation_fn` that refuses a checkpoint of another network.

  Args:
    checkpoint_state: what the checkpoint holds, under `target` and `state`.
    model_state: what the model expects.
    is_resuming: a run goes on from its own checkpoint, which is taken whole.

  Returns:
    The state of the checkpoint, as it is.

  Raises:
    UserError: parameters of the network, other than the prompt and its masks,
      are not in the checkpoint; T5X would draw them at random.
  """
  if is_resuming:
    return checkpoint_state
  expected = traverse_util.flatten_dict(dict(model_state["target"]), sep="/")
  missing = sorted(
      name
      for name in expected
      if not name.startswith(f"{names.SCOPE}/")
      and not _has(checkpoint_state["target"], name)
  )
  if missing:
    raise UserError(
        f"checkpoint of the frozen weights: found no"
        f" {', '.join(missing[:_SHOWN])} ({len(missing)} missing), expected all"
        " parameters of the network that MODEL names"
    )
  return checkpoint_state


def _has(tree: Any, name: str) -> bool:
  """Whether a tree has `a/b/c`; what T5X will read may be a dict itself."""
  for key in name.split("/"):
    if not isinstance(tree, Mapping) or key not in tree:
      return False
    tree = tree[key]
  return True


def prompt_from(
    checkpoint_state: Mapping[str, Any],
    model_state: Mapping[str, Any],
    prompt_file: str | None = None,
    *,
    is_resuming: bool = False,
) -> dict[str, Any]:
  """A `state_transformation_fn` of T5X's `RestoreCheckpointConfig`.

  Args:
    checkpoint_state: what the checkpoint holds, under `target` and `state`.
    model_state: what the model expects; not looked at.
    prompt_file: where the model's prompt starts. With one the checkpoint's own
      prompt is passed over; without, the checkpoint must have one.
    is_resuming: a run goes on from its own checkpoint, which is taken whole.

  Returns:
    The state to restore.

  Raises:
    UserError: neither the checkpoint nor a file gives a prompt.
  """
  del model_state
  state = dict(checkpoint_state)
  if is_resuming:
    return state
  target = dict(state["target"])
  encoder = dict(target["encoder"])
  found = encoder.pop("prompt", None)
  if prompt_file is None:
    if found is None:
      raise UserError(
          "CHECKPOINT_PATH: found a checkpoint without a prompt, expected one of"
          " a run with a prompt, or PROMPT_FILE"
      )
    return state
  return {**state, "target": {**target, "encoder": encoder}}
