"""What T5X is told about restoring a checkpoint that may lack a prompt.

T5X fills what a checkpoint does not have from its initialiser, once
`fallback_to_scratch` is set. This decides, for evaluation and inference, whether
a prompt in the checkpoint counts; training uses T5X's own `assignment_map`.
"""

from collections.abc import Mapping
from typing import Any

from xprompt_jax.types import UserError


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
