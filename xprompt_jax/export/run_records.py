"""What a run recorded of a trained prompt: its ticket, recipe, data and scores.

`stored_prompts.py` reads the prompt itself. A prompt that lies in no run's
folder has no record, and nothing is made up for it.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.experiment import Experiment, ExperimentConfig
from xprompt_jax.types import UserError

_RATIOS = ("token_ratio", "piece_ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """What stands in the result files around a prompt file.

  Attributes:
    stage: the name of the folder that holds the file.
    rows: a line for each of the R tickets of the file: `seed`, the ratios,
      sizes, `validation`, and `test` where the run has it.
    config: every setting that decides the result, with fingerprints.
    search: how tickets were looked for; empty if the run has not ended.
    num_examples: examples of each split; empty likewise.
    members: the same by task, where rows read different tasks.
    test_fingerprint: of the test split, or None.
    tickets_tried: pruned tickets that were retrained; None likewise.
    versions: of the packages that computed.
  """

  stage: str
  rows: tuple[Mapping[str, Any], ...]
  config: Mapping[str, Any]
  search: Mapping[str, Any]
  num_examples: Mapping[str, int]
  members: Mapping[str, Mapping[str, int]]
  test_fingerprint: str | None
  tickets_tried: int | None
  versions: Mapping[str, str]

  def examples_of(self, row: Mapping[str, Any], role: str) -> int | None:
    """How many examples of a split a row reads."""
    return self.members.get(row.get("task", ""), self.num_examples).get(role)


def _same_ticket(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
  names = ("task", "seed", *_RATIOS)
  return all(a.get(name) == b.get(name) for name in names)


def _with_test(
    row: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Any]:
  """A row, with its results on test if the summary has them."""
  for method in summary.get("methods", ()):
    for other in method["rows"]:
      if _same_ticket(row, other) and "test" in other:
        return {**row, "test": other["test"]}
  return dict(row)


def _folder(prompt_path: str) -> pathlib.Path:
  """The stage's folder that a prompt file lies in."""
  path = pathlib.Path(prompt_path).absolute()
  return path if path.is_dir() else path.parent


def _json(path: pathlib.Path) -> dict[str, Any]:
  return artifacts.read_json(path) if path.exists() else {}


def read_record(prompt_path: str, num_rows: int) -> Record | None:
  """The record of a prompt file that lies in a folder of a run.

  Args:
    prompt_path: the file, or the stage's folder.
    num_rows: R of the file.

  Returns:
    None if no run's `result.json` of R rows lies beside it.

  Raises:
    UserError: a result file is damaged.
  """
  folder = _folder(prompt_path)
  rows = _json(folder / artifacts.RESULT).get("rows")
  named = pathlib.Path(prompt_path).name in (artifacts.PROMPT, folder.name)
  if not named or not isinstance(rows, list) or len(rows) != num_rows:
    return None
  root = folder.parent
  summary = _json(root / artifacts.RESULT)
  whole = summary.get("config", {})
  # Every prompt of a run began in its tuning; rewind/ keeps less of the config.
  config = whole or _json(root / artifacts.TUNE / artifacts.RESULT).get(
      "config"
  )
  if not config:
    return None
  return Record(
      stage=folder.name,
      rows=tuple(_with_test(row, summary) for row in rows),
      config=config,
      search=whole.get("search", {}),
      num_examples=summary.get("num_examples", {}),
      members=summary.get("members", {}),
      test_fingerprint=whole.get("test", {}).get("test"),
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


def _scores_of(
    folder: pathlib.Path, ticket: Mapping[str, Any], piece_ratio: Any
) -> dict[str, np.ndarray]:
  """What a scoring stage found for the prompt and masks of a ticket."""
  result = _json(folder / artifacts.RESULT)
  wanted = {**ticket, "piece_ratio": piece_ratio}
  for row, scored in enumerate(result.get("rows", ())):
    if _same_ticket(wanted, scored):
      arrays = artifacts.load_arrays(folder / artifacts.SCORES)
      return {name: array[row] for name, array in arrays.items()}
  return {}


def read_scores(
    prompt_path: str, ticket: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Importance scores of a ticket's units, where its run took them.

  Both are of the tuned prompt before the ticket was retrained: those of tokens
  with nothing pruned, those of pieces behind the token masks.

  Args:
    prompt_path: as for `read_record`.
    ticket: a row of the record.

  Returns:
    `token_scores` [P] and `piece_scores` [P, K], or what there is of them.

  Raises:
    UserError: a file is damaged.
  """
  root = _folder(prompt_path).parent
  unpruned = {**ticket, "token_ratio": None}
  by_token, by_piece = (
      root / artifacts.score_folder(name) for name in ("token", "piece")
  )
  whole = _scores_of(by_token, unpruned, None) or _scores_of(
      by_piece, unpruned, None
  )
  return {**whole, **_pieces(_scores_of(by_piece, ticket, None))}


def _pieces(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {k: v for k, v in scores.items() if k == "piece_scores"}
