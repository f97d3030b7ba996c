"""What a run recorded of a trained prompt: its ticket, recipe, data and scores.

`stored_prompts.py` reads the prompt itself. A prompt that lies in no run's
folder has no record, and nothing is made up for it.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts, auto_ratio
from xprompt_jax.experiment import Experiment, ExperimentConfig
from xprompt_jax.types import UserError

# What tells tickets of a run apart: those of equal ratios may be of other
# scores, or controls.
_TICKET = (
    "task",
    "seed",
    "token_ratio",
    "piece_ratio",
    "importance",
    "control",
)
# Splits that nothing was chosen on.
REPORTING = ("heldout", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """What stands in the result files around a prompt file.

  Attributes:
    stage: the name of the folder that holds the file, `auto_ratio` for the
      one in it.
    rows: a line for each of the R tickets of the file: `seed`, the ratios,
      sizes, `validation`, and `heldout` and `test` where the run has them.
    config: every setting that decides the result, with fingerprints.
    search: how tickets were looked for; empty if the run has not ended.
    num_examples: examples of each split; empty likewise.
    members: the same by task, where rows read different tasks.
    reporting: fingerprints of the splits that only report, by role.
    tickets_tried: pruned tickets that were retrained; None likewise.
    versions: of the packages that computed.
  """

  stage: str
  rows: tuple[Mapping[str, Any], ...]
  config: Mapping[str, Any]
  search: Mapping[str, Any]
  num_examples: Mapping[str, int]
  members: Mapping[str, Mapping[str, int]]
  reporting: Mapping[str, str]
  tickets_tried: int | None
  versions: Mapping[str, str]

  def examples_of(self, row: Mapping[str, Any], role: str) -> int | None:
    """How many examples of a split a row reads."""
    return self.members.get(row.get("task", ""), self.num_examples).get(role)


def _same_ticket(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
  return all(a.get(name) == b.get(name) for name in _TICKET)


def _reported(
    row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
  """A row, with what the first of others of its ticket reports beside it."""
  for other in rows:
    found = {role: other[role] for role in REPORTING if role in other}
    if found and _same_ticket(row, other):
      return {**row, **found}
  return dict(row)


def _with_results(
    rows: list[dict[str, Any]],
    summary: Mapping[str, Any],
    chosen: list[dict[str, Any]],
) -> tuple[dict[str, Any], ...]:
  """Rows with their results on splits that only report, where there are any.

  Args:
    rows: of the file.
    summary: of the run.
    chosen: the rows of `auto_ratio/result.json`, for the file in there; its
      rules may choose one ticket twice.
  """
  if len(chosen) == len(rows):
    pairs = zip(rows, chosen, strict=True)
    return tuple(_reported(row, [own]) for row, own in pairs)
  searched = [
      row
      for method in summary.get("methods", ())
      if not method["method"].startswith("auto_")
      for row in method["rows"]
  ]
  return tuple(_reported(row, searched) for row in rows)


def _folder(prompt_path: str) -> pathlib.Path:
  """The stage's folder that a prompt file lies in, by its own name."""
  path = pathlib.Path(os.path.abspath(prompt_path))
  return path if path.is_dir() else path.parent


def _root(folder: pathlib.Path) -> pathlib.Path:
  """The run's folder that a stage's lies in."""
  parent = folder.parent
  return parent.parent if parent.name == auto_ratio.FOLDER else parent


def _json(path: pathlib.Path) -> dict[str, Any]:
  return artifacts.read_json(path) if path.exists() else {}


def _check_prompt(
    path: str, prompt: np.ndarray, note: pathlib.Path, config: Any
) -> None:
  """Refuses a prompt that is not the one a result file was written about."""
  # `rewind/` states its prompt; where others have their settings.
  stated = config.get("prompt") if isinstance(config, dict) else None
  found = artifacts.digest_arrays({"prompt": prompt})
  if isinstance(stated, str) and stated != found:
    raise UserError(
        f"{path}: prompt: contents have sha256 {found[:12]}, expected"
        f" {stated[:12]} by {note}: it is not the prompt of that run"
    )


def read_record(prompt_path: str, prompt: np.ndarray) -> Record | None:
  """The record of a prompt file that lies in a folder of a run.

  Args:
    prompt_path: the file, or the stage's folder.
    prompt: [R, P, H], what the file holds.

  Returns:
    None if no run's `result.json` of R rows lies beside it.

  Raises:
    UserError: a result file is damaged, or is about another prompt.
  """
  folder = _folder(prompt_path)
  path = pathlib.Path(prompt_path)
  result = _json(folder / artifacts.RESULT)
  rows = result.get("rows")
  named = path.is_dir() or path.name == artifacts.PROMPT
  if not named or not isinstance(rows, list) or len(rows) != len(prompt):
    return None
  root = _root(folder)
  deeper = folder.parent != root
  summary = _json(root / artifacts.RESULT)
  whole = summary.get("config", {})
  # Every prompt of a run began in its tuning; rewind/ keeps less of the config.
  config = whole or _json(root / artifacts.TUNE / artifacts.RESULT).get(
      "config"
  )
  if not config:
    return None
  note = folder / artifacts.RESULT
  _check_prompt(prompt_path, prompt, note, result.get("config"))
  beside = _json(folder.parent / artifacts.RESULT) if deeper else {}
  return Record(
      stage=auto_ratio.FOLDER if deeper else folder.name,
      rows=_with_results(rows, summary, beside.get("rows", [])),
      config=config,
      search=whole.get("search", {}),
      num_examples=summary.get("num_examples", {}),
      members=summary.get("members", {}),
      reporting=whole.get("test", {}),
      tickets_tried=summary.get("tickets_tried"),
      versions=_json(root / artifacts.RUN).get("versions", {}),
  )


def task_of(
    record: Record | None, row: int, experiment: Experiment
) -> str | None:
  """The member of the experiment's mixture that a row was trained on."""
  task = record and record.rows[row].get("task")
  return task if task in experiment.data.tasks else None


def check_pruned_tokens(
    record: Record | None, config: ExperimentConfig, path: str
) -> None:
  """Refuses to speak of pruned tokens otherwise than the run treated them."""
  found = config.prompt.pruned_tokens
  expected = record.config["prompt"]["pruned_tokens"] if record else found
  if found != expected:
    raise UserError(
        f"PromptConfig.pruned_tokens: found {found!r}, expected {expected!r},"
        f" which the run of {path} was made with"
    )


def check_validation(
    record: Record | None, experiment: Experiment, path: str
) -> None:
  """Refuses to measure a run's prompt on what is not its own validation."""
  if record is None:
    return
  whose = f"that of the run of {path}"
  found, expected = experiment.config.task.name, record.config["task"]["name"]
  if found != expected:
    raise UserError(
        f"--remove_pruned_tokens: found task {found!r}, expected {expected!r},"
        f" {whose}"
    )
  found = experiment.splits["validation"].fingerprint
  expected = record.config["splits"].get("validation")
  if found != expected:
    raise UserError(
        f"--remove_pruned_tokens: found a validation split of sha256 {found},"
        f" expected {expected}, {whose}"
    )


def _scored(folder: pathlib.Path) -> list[tuple[Mapping, Mapping]]:
  """Each ticket of a scoring stage, with the arrays it found for it."""
  tickets = _json(folder / artifacts.RESULT).get("rows", ())
  if not tickets:
    return []
  arrays = artifacts.load_arrays(folder / artifacts.SCORES)
  return [
      (ticket, {name: array[row] for name, array in arrays.items()})
      for row, ticket in enumerate(tickets)
  ]


def _scores_of(
    scored: Iterable[tuple[Mapping, Mapping]], ticket: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
  """The arrays of a ticket as it was before its pieces were pruned.

  Nothing for controls, which nobody scored, and for tickets ranked by something
  else than gradients only what was taken at their own masks.
  """
  wanted = {**ticket, "piece_ratio": None}
  return next((a for other, a in scored if _same_ticket(wanted, other)), {})


def read_scores(
    prompt_path: str, tickets: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], ...]:
  """Importance scores of tickets' units, where their run took them.

  Both are of the tuned prompt before the ticket was retrained: those of tokens
  with nothing pruned, those of pieces behind the token masks.

  Args:
    prompt_path: as for `read_record`.
    tickets: rows of the record.

  Returns:
    For each `token_scores` [P] and `piece_scores` [P, K], or what there is of
    them.

  Raises:
    UserError: a file is damaged.
  """
  folder = _folder(prompt_path)
  root = _root(folder)
  by_token = _scored(root / artifacts.score_folder("token"))
  by_piece = _scored(folder.parent / artifacts.score_folder("piece"))
  found = []
  for ticket in tickets:
    whole = _scores_of([*by_token, *by_piece], {**ticket, "token_ratio": None})
    pieces = _scores_of(by_piece, ticket)
    found.append(
        {**whole, **{k: v for k, v in pieces.items() if k == "piece_scores"}}
    )
  return tuple(found)
