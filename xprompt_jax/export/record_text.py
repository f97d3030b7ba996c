"""What a run's record says in the model card, as Markdown.

`run_records.py` reads the record; `model_card.py` puts the card together.
"""

from collections.abc import Mapping, Sequence
import json
from typing import Any

from xprompt_jax import artifacts, auto_ratio, controls
from xprompt_jax.export.markdown import escape, table
from xprompt_jax.export.run_records import REPORTING, Record
from xprompt_jax.task_config import HELDOUT

_SHORT = 12  # Digits shown of a sha256.
_ROLES = ("train", "validation", *REPORTING)
# What a split is called beside its role, of a run of the held-out protocol.
_HALVES = {
    "validation": ", the half that selects",
    HELDOUT: ", the half that reports",
}


def choice(record: Record) -> str:
  """What validation chose of the file's prompts."""
  tried = record.tickets_tried
  among = f" among {tried} tickets" if tried else ""
  if record.stage == artifacts.TUNE:
    return "The checkpoint was chosen on validation, so validation favours it."
  if record.stage == artifacts.REWIND:
    return (
        f"The checkpoint and the ticket were chosen on validation{among}, so"
        " validation favours them."
    )
  if record.stage == controls.FOLDER:
    return (
        "Each control's checkpoint was chosen on validation, so validation"
        " favours it; none was chosen among others."
    )
  if record.stage == auto_ratio.FOLDER:
    return (
        "Each ticket's checkpoint was chosen on validation, so validation"
        " favours it; its ratios were chosen on training data."
    )
  return (
      "Each ticket's checkpoint was chosen on validation, and so was each"
      f" seed's winner{among}: validation favours what it chose. This file"
      " holds the losers too."
  )


def _is_divided(record: Record) -> bool:
  return record.config["task"].get("protocol") == HELDOUT


def reported(record: Record, tickets: Sequence[Mapping[str, Any]]) -> str:
  """Which splits had no part in the choice.

  Args:
    record: of the run.
    tickets: lines of what is exported.
  """
  text = ""
  if _is_divided(record):
    text = (
        " Validation is the half of its split that selects, heldout the other"
        " half."
    )
  roles = [role for role in REPORTING if any(role in t for t in tickets)]
  if not roles:
    nothing = " There is no result on data that had no part in the choice."
    return text + nothing
  names = " and ".join(roles).capitalize()
  looked = "was" if len(roles) == 1 else "were"
  return f"{text} {names} {looked} looked at once, at the end."


def settings(values: Mapping[str, Any]) -> list[tuple[str, object]]:
  """Fields of a config for a table, those that are not set left out."""
  return [
      (name.replace("_", " "), json.dumps(v) if isinstance(v, list) else v)
      for name, v in values.items()
      if v not in (None, [], ())
  ]


def recipe(record: Record) -> str:
  """The card's section on settings."""
  config = record.config
  rows = [
      *((f"prompt: {k}", v) for k, v in settings(config["prompt"])),
      *((f"Adafactor: {k}", v) for k, v in settings(config["optimizer"])),
      *((f"training: {k}", v) for k, v in settings(config["train"])),
      *((f"search: {k}", v) for k, v in settings(record.search)),
      ("seeds of the run", json.dumps(config["seeds"])),
  ]
  return f"## Recipe\n\n{table(['setting', 'value'], rows)}"


def data(record: Record) -> str:
  """The card's section on the task and its splits."""
  task = record.config["task"]
  prints = {**record.config["splits"], **record.reporting}
  names = {role: task.get(f"{role}_split") for role in _ROLES}
  if _is_divided(record):
    whole = names["validation"]
    names |= {role: f"{whole}{half}" for role, half in _HALVES.items()}
  rows = [
      [
          role,
          # What the test split is called is no part of a run's config.
          names[role] or "not recorded",
          record.num_examples.get(role),
          (prints.get(role) or "")[:_SHORT] or None,
      ]
      for role in _ROLES
      if prints.get(role)
  ]
  shown = table(["role", "split", "examples", "sha256"], rows)
  return (
      f"## Data\n\nTask {escape(task['name'])}, inputs of at most"
      f" {task['inputs_length']} tokens, targets of at most"
      f" {task['targets_length']}.\n\n{shown}"
  )
