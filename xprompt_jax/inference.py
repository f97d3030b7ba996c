"""Predictions for texts that belong to no task: `t5x infer`.

`commands.py` has the commands that read a task's splits.
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import sys
from typing import Any, TextIO

import numpy as np

from xprompt_jax import artifacts, evaluation, stored_prompts
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    load_experiment,
)
from xprompt_jax.tables import TableRows
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError


@contextlib.contextmanager
def _open_output(name: str) -> Iterator[TextIO]:
  if name == "-":
    yield sys.stdout
    return
  with (
      artifacts.replacing(pathlib.Path(name)) as temporary,
      open(temporary, "w", encoding="utf-8") as f,
  ):
    yield f


def _read_inputs(name: str) -> list[dict[str, Any]]:
  try:
    content = (
        sys.stdin.buffer.read()
        if name == "-"
        else pathlib.Path(name).read_bytes()
    )
    text = content.decode("utf-8-sig")
  except (OSError, UnicodeDecodeError) as e:
    raise UserError(f"--input={name}: cannot read: {e}") from e
  rows = []
  # Not splitlines, which also ends lines at characters JSON text may hold.
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as e:
      raise UserError(f"--input={name}: line {number}: not JSON: {e}") from e
    if not isinstance(row, dict) or not isinstance(row.get("inputs"), str):
      raise UserError(
          f"--input={name}: line {number}: found {line[:60]!r}, expected an"
          " object with a text `inputs`"
      )
    rows.append(row)
  if not rows:
    raise UserError(f"--input={name}: found no lines, expected JSON lines")
  return rows


def infer(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    prompt_file: str | None,
    row: int,
    source: str,
    target: str,
) -> None:
  """Reads JSON lines with `inputs` and writes them with `prediction` added.

  Args:
    config: the root config.
    workdir: of the run whose prompt is used.
    prompt_file: a prompt to use instead.
    row: which of its prompts; a run has one for each seed.
    source: JSON lines; `-` is standard input.
    target: where predictions go; `-` is standard output.
  """
  lines = _read_inputs(source)
  prompt, masks, path = stored_prompts.load_prompts(
      config, workdir, prompt_file
  )
  stored_prompts.check_row(row, path, prompt.shape[0])
  experiment = load_experiment(config, workdir, roles=())
  if prompt_file is None:
    stored_prompts.check_weights(workdir, experiment)
  split = _text_split([line["inputs"] for line in lines], experiment)
  rows = TableRows(
      seeds=(0,),
      splits=(split,),
      buckets=config.task.buckets,
      targets_length=config.task.targets_length,
  )
  (predictions,) = evaluation.predict_table(
      prompt[[row]],
      masks_lib.take_rows(masks, np.array([row])),
      rows,
      model=experiment.model,
      frozen_params=experiment.frozen_params,
      vocabulary=experiment.vocabulary,
      batch_size=experiment.whole_batches(config.eval_batch_size),
      mesh=experiment.mesh,
  )
  with _open_output(target) as f:
    for line, prediction in zip(lines, predictions, strict=True):
      f.write(json.dumps({**line, "prediction": prediction}) + "\n")


def _text_split(texts: list[str], experiment: Experiment) -> CachedSplit:
  """Texts as a split without targets, tokenised as the cache does."""
  vocabulary = experiment.vocabulary
  most = experiment.config.task.inputs_length - 1
  inputs = [
      np.array([*vocabulary.encode(t)[:most], vocabulary.eos_id], np.int32)
      for t in texts
  ]
  return CachedSplit(
      task=artifacts.INFER,
      split="inputs",
      inputs=np.concatenate(inputs),
      input_offsets=np.cumsum([0, *map(len, inputs)]),
      targets=np.full(len(texts), vocabulary.eos_id, np.int32),
      target_offsets=np.arange(len(texts) + 1),
      examples=[{"id": i} for i in range(len(texts))],
      info={},
  )
