"""The prompts that commands are about, read from a run or from a file.

`prompts.py` makes prompts and knows no run; `eval`, `score`, `infer` and
`export` all start here.
"""

from collections.abc import Iterator
import os
import pathlib
import sys
from typing import Any

import numpy as np

from xprompt_jax import artifacts, prompt_formats
from xprompt_jax.experiment import Experiment, ExperimentConfig
from xprompt_jax.prompt_formats import export_note, places, reading
from xprompt_jax.types import PromptMasks, UserError


def _notes(prompt_path: str) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
  """What export.json beside a prompt, or the run around it, says of it.

  Yields:
    The file, and `pruned_tokens` and `frozen_params` where it states them.
  """
  file = reading.file_of(prompt_path)
  exported = export_note.read(file)
  if exported is not None:
    yield export_note.beside(file), exported
  if file.name != artifacts.PROMPT:
    return
  # Every prompt of a run began in its tuning, whose config is whole.
  folder = pathlib.Path(os.path.abspath(file)).parent
  note = folder.parent / artifacts.TUNE / artifacts.RESULT
  if (folder / artifacts.RESULT).exists() and note.exists():
    config = artifacts.read_json(note).get("config")
    if isinstance(config, dict) and isinstance(config.get("prompt"), dict):
      yield note, config | config["prompt"]


def _check_pruned_tokens(
    path: str, config: ExperimentConfig, masks: PromptMasks
) -> None:
  """Refuses to hide pruned tokens that were trained in sight, or to show."""
  hidden = np.asarray(masks.token_mask) == 0
  if masks.present is not None:
    # A position that a shorter prompt lacks is no pruned token of it.
    hidden &= np.asarray(masks.present) > 0
  pruned = int(hidden.sum())
  found = config.prompt.pruned_tokens
  for note, stated in _notes(path) if pruned else ():
    meant = stated.get("pruned_tokens", found)
    if meant != found:
      raise UserError(
          f"{path}: found PromptConfig.pruned_tokens = {found!r} and {pruned}"
          f" pruned tokens, expected --gin.PromptConfig.pruned_tokens="
          f'"{meant!r:.60}", as {note} says'
      )


def read_prompts(
    path: str, config: ExperimentConfig
) -> tuple[np.ndarray, PromptMasks]:
  """Reads prompts of any length, with masks.

  Args:
    path: what `prompt_formats.read_table` reads.
    config: H comes from here, K where the file has no piece masks, and what
      pruned tokens are.

  Returns:
    The prompt [R, P, H], unmasked, and its masks; ones where the file has
    none, `present` where it has shorter prompts.

  Raises:
    UserError: a file that cannot be read, or whose masks fit no prompt of it,
      or pruned tokens that were not meant to be treated as the config says.
  """
  prompt, masks = prompt_formats.read_table(
      path,
      embed_dim=config.model.emb_dim,
      num_pieces=config.prompt.num_pieces,
  )
  _check_pruned_tokens(path, config, masks)
  return prompt, masks


def _check_no_baseline(workdir: pathlib.Path) -> None:
  """Says of a run that left no prompt which method it is of."""
  note = workdir / artifacts.TUNE / artifacts.RESULT
  if not note.exists():
    return
  config = artifacts.read_json(note).get("config")
  method = config.get("method") if isinstance(config, dict) else None
  if isinstance(method, dict):
    raise UserError(
        f"{workdir}: a run of {method.get('name')!s:.60}: its results are in"
        f" {artifacts.RESULT}; eval, infer, score and export know prompts alone"
    )


def load_prompts(
    config: ExperimentConfig, workdir: pathlib.Path, prompt_file: str | None
) -> tuple[np.ndarray, PromptMasks, str]:
  """The prompts a command is about: a given file, or what the run left.

  Args:
    config: the root config.
    workdir: of the run.
    prompt_file: PROMPT_FILE; None means the run's own.

  Returns:
    The prompt [R, P, H], unmasked, its masks, and the path of the file.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  if prompt_file is not None:
    return *read_prompts(prompt_file, config), prompt_file
  candidates = [
      workdir / folder / artifacts.PROMPT
      for folder in (artifacts.REWIND, artifacts.TUNE)
  ]
  found = next((str(p) for p in candidates if p.exists()), None)
  if found is None:
    _check_no_baseline(workdir)
    raise UserError(
        f"{workdir}: holds no trained prompt, expected {candidates[0]}, or a"
        " prompt given by --gin.PROMPT_FILE"
    )
  return *read_prompts(found, config), found


def check_row(
    row: int, path: str, num_rows: int, flag: str | None = None
) -> None:
  """Refuses a row that a file of R = `num_rows` prompts does not have.

  Args:
    row: counted from 0.
    path: of the file.
    num_rows: R.
    flag: what named the row; None means `--row`.
  """
  places.check_row(row, path, num_rows, flag or f"--row={row}")


def row_labels(
    experiment: Experiment, prompt_path: str, num_rows: int
) -> tuple[list[int], list[str | None]]:
  """Seed and task of each prompt of a file, as the run around it says.

  Args:
    experiment: what is loaded.
    prompt_path: what `read_prompts` has read.
    num_rows: R of the file.

  Returns:
    R seeds, those of the config where nothing is known; and R tasks, None
    where a row reads all that is configured.

  Raises:
    UserError: prompts of the run in WORKDIR were trained on tasks that the
      config does not have.
  """
  rows = places.recorded_rows(prompt_path, num_rows)
  seeds = experiment.config.seeds
  if rows is None:
    return [seeds[i % len(seeds)] for i in range(num_rows)], [None] * num_rows
  known = experiment.data.tasks
  tasks = [row.get("task") for row in rows]
  folder = reading.file_of(prompt_path).parent
  # A prompt from elsewhere may be tried on another task on purpose.
  if folder.resolve().parent == experiment.workdir.resolve():
    _check_tasks(prompt_path, tasks, experiment)
  return (
      [row["seed"] for row in rows],
      [task if task in known else None for task in tasks],
  )


def _check_tasks(
    path: str, tasks: list[str | None], experiment: Experiment
) -> None:
  """Refuses rows of single tasks under a config that does not have them."""
  stated = list(dict.fromkeys(task for task in tasks if task is not None))
  if set(stated) <= set(experiment.data.tasks):
    return
  task = experiment.config.task
  raise UserError(
      f"{path}: holds rows of the tasks {', '.join(stated)}, found"
      f" MIXTURE_OR_TASK_NAME = {task.name!r} and MIXTURE_ROWS ="
      f" {task.mixture_rows!r}, expected the mixture they were trained as, and"
      " MIXTURE_ROWS = 'task'"
  )


def weights_facts(experiment: Experiment) -> dict[str, Any]:
  """What tells one frozen model from another, as run.json keeps it."""
  return {
      "frozen_dtype": experiment.config.frozen_dtype,
      "frozen_params": experiment.fingerprint,
  }


def check_weights(workdir: pathlib.Path, experiment: Experiment) -> None:
  """Refuses frozen weights that are not those of the run in WORKDIR."""
  path = workdir / artifacts.RUN
  run = artifacts.read_json(path)
  facts = weights_facts(experiment)
  artifacts.check_config(path, {name: run.get(name) for name in facts}, facts)


def warn_of_other_weights(prompt_path: str, experiment: Experiment) -> None:
  """Says on stderr if a prompt file was trained with other frozen weights.

  It may be used with them on purpose, so nothing is refused.

  Args:
    prompt_path: what `read_prompts` has read.
    experiment: what is loaded.
  """
  found = experiment.fingerprint
  for note, stated in _notes(prompt_path):
    meant = stated.get("frozen_params", found)
    if meant != found:
      print(
          f"{prompt_path}: found frozen weights {found:.12}, expected"
          f" {meant!s:.12} by {note}: answers may be others",
          file=sys.stderr,
      )
