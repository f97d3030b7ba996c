"""Predictions for texts that belong to no task: `t5x infer`.

`commands.py` has the commands that read a task's splits.
"""

from collections.abc import Iterator, Sequence
import contextlib
import json
import math
import pathlib
import sys
from typing import Any, NoReturn, TextIO

from jaxtyping import Float, Int
import numpy as np

from xprompt_jax import (
    artifacts,
    candidates,
    evaluation,
    prompt_library,
    stored_prompts,
)
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    load_experiment,
)
from xprompt_jax.model import PromptedT5
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import AnyArray, PromptMasks, UserError, require


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


def _refuse_constant(text: str) -> NoReturn:
  raise ValueError(f"found {text}, expected a finite number")


def _finite(text: str) -> float:
  number = float(text)
  if not math.isfinite(number):
    _refuse_constant(text)
  return number


def _read_line(where: str, line: str) -> dict[str, Any]:
  """One input, which can be tokenised and written again."""
  try:
    row = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
  except RecursionError as e:
    raise UserError(f"{where}: not JSON: nested too deeply") from e
  except ValueError as e:
    raise UserError(f"{where}: not JSON: {e}") from e
  if not isinstance(row, dict) or not isinstance(row.get("inputs"), str):
    raise UserError(
        f"{where}: found {line[:60]!r}, expected an object with a text `inputs`"
    )
  _check_encodable(f"{where}: inputs", row["inputs"])
  return row


def _check_encodable(where: str, text: str) -> None:
  """Refuses halves of surrogate pairs, which JSON can spell."""
  try:
    text.encode()
  except UnicodeEncodeError as e:
    raise UserError(
        f"{where}: found {text[e.start]!r} at {e.start}, expected text that"
        " UTF-8 can encode"
    ) from e


def _warn_of_names(lines: list[tuple[int, dict[str, Any]]], name: str) -> None:
  """Says once that lines name prompts where there is no choice."""
  for number, line in lines:
    if isinstance(line.get("prompt"), str):
      print(
          f"--input={name}: line {number}: found prompt"
          f" {line['prompt']!r:.60}, which no --prompt names: all lines are"
          " answered with one prompt",
          file=sys.stderr,
      )
      return


def _read_inputs(name: str) -> list[tuple[int, dict[str, Any]]]:
  """Lines with their numbers, which start at 1; empty ones are left out."""
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
    rows.append((number, _read_line(f"--input={name}: line {number}", line)))
  if not rows:
    raise UserError(f"--input={name}: found no lines, expected JSON lines")
  return rows


def _named_rows(
    lines: list[tuple[int, dict[str, Any]]], names: Sequence[str], source: str
) -> np.ndarray:
  """The row of the prompt that each line names in its field `prompt`: [N]."""
  row_of = {name: row for row, name in enumerate(names)}
  default = names[0] if len(names) == 1 else None
  rows = []
  for number, line in lines:
    found = line.get("prompt", default)
    if not isinstance(found, str) or found not in row_of:
      what = f"prompt {found!r:.60}" if "prompt" in line else "no `prompt`"
      raise UserError(
          f"--input={source}: line {number}: found {what}, expected one of"
          f" {', '.join(names)}"
      )
    rows.append(row_of[found])
  return np.array(rows)


def infer(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    *,
    prompt_file: str | None,
    row: int | None,
    named_prompts: Sequence[str],
    source: str,
    target: str,
) -> None:
  """Reads JSON lines with `inputs` and writes them with `prediction` added.

  PREDICT_BY other than `generate` chooses among each line's `candidates`.

  Args:
    config: the root config.
    workdir: of the run whose prompt is used.
    prompt_file: a prompt to use instead.
    row: which of its prompts; a run has one for each seed. None means 0.
    named_prompts: `NAME=PATH` or `NAME=PATH#ROW`, prompts to use instead of
      both; lines name theirs in the field `prompt`.
    source: JSON lines; `-` is standard input.
    target: where predictions go; `-` is standard output.
  """
  if target != "-" and pathlib.Path(target).is_dir():
    raise UserError(f"--output={target}: found a folder, expected a file, or -")
  named = prompt_library.parse_named_prompts(named_prompts)
  if named:
    flag = f"--prompt={named_prompts[0]}"
    alone = "prompts from --prompt alone"
    require(prompt_file is None, flag, f"PROMPT_FILE={prompt_file}", alone)
    require(row is None, flag, f"--row={row}", f"{alone}, as NAME=PATH#ROW")
  lines = _read_inputs(source)
  if config.predict_by != evaluation.GENERATE:
    _check_candidates(lines, config.predict_by, source)
  if named:
    row_ids = _named_rows(lines, list(named), source)
    library = prompt_library.read_library(named, config)
    paths = list(dict.fromkeys(entry.path for entry in named.values()))
  else:
    _warn_of_names(lines, source)
    row_ids = np.zeros(len(lines), np.int64)
    prompts, masks, path = stored_prompts.load_prompts(
        config, workdir, prompt_file
    )
    library = [prompt_library.take_prompt(prompts, masks, path, row or 0)]
    paths = [path]
  experiment = load_experiment(config, workdir, roles=())
  if not named and prompt_file is None:
    stored_prompts.check_weights(workdir, experiment)
  for path in paths:
    stored_prompts.warn_of_other_weights(path, experiment)
  prompt, masks, model = prompt_library.join_prompts(library, experiment.model)
  split = _text_split(lines, experiment, source)
  predictions = _predict(experiment, model, prompt, masks, split, row_ids)
  with _open_output(target) as f:
    for (_, line), prediction in zip(lines, predictions, strict=True):
      f.write(json.dumps({**line, "prediction": prediction}) + "\n")


def _predict(
    experiment: Experiment,
    model: PromptedT5,
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    split: CachedSplit,
    row_ids: Int[np.ndarray, "N"],
) -> list[str]:
  """Each line's answer: written, or chosen among its candidates."""
  config = experiment.config
  common = {
      **experiment.predicting,
      "model": model,
      "buckets": config.task.buckets,
      "targets_length": config.task.targets_length,
  }
  if config.predict_by == evaluation.GENERATE:
    return evaluation.predict_named(
        prompt, masks, split, row_ids, **common, num_beams=config.num_beams
    )
  scores = candidates.score_named(
      prompt, masks, split, row_ids, config.predict_by, **common
  )
  return candidates.best(split, scores)


def _check_candidates(
    lines: list[tuple[int, dict[str, Any]]], way: str, name: str
) -> None:
  """Refuses lines that lack the candidates among which a way chooses."""
  for number, line in lines:
    where = f"--input={name}: line {number}"
    found = line.get("candidates")
    if not (
        isinstance(found, list)
        and found
        and all(isinstance(text, str) for text in found)
    ):
      raise UserError(
          f"{where}: found candidates {found!r:.60}, expected a list of texts,"
          f" for PREDICT_BY = {way!r}"
      )
    for place, text in enumerate(found):
      _check_encodable(f"{where}: candidates[{place}]", text)


def _text_split(
    lines: list[tuple[int, dict[str, Any]]], experiment: Experiment, name: str
) -> CachedSplit:
  """Texts as a split without targets, tokenised as the cache does."""
  texts = [line["inputs"] for _, line in lines]
  vocabulary = experiment.vocabulary
  most = experiment.config.task.inputs_length - 1
  tokens = [vocabulary.encode(text) for text in texts]
  cut = sum(len(text) > most for text in tokens)
  if cut:
    print(
        f"--input={name}: {cut} of {len(texts)} inputs were cut to the"
        f" {most + 1} tokens of INPUTS_LENGTH",
        file=sys.stderr,
    )
  inputs = [
      np.array([*text[:most], vocabulary.eos_id], np.int32) for text in tokens
  ]
  return CachedSplit(
      task=artifacts.INFER,
      split="inputs",
      inputs=np.concatenate(inputs),
      input_offsets=np.cumsum([0, *map(len, inputs)]),
      targets=np.full(len(texts), vocabulary.eos_id, np.int32),
      target_offsets=np.arange(len(texts) + 1),
      examples=[
          {"id": i, "fields": {"candidates": line.get("candidates", ())}}
          for i, (_, line) in enumerate(lines)
      ],
      info={},
  )
