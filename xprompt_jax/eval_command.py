"""`t5x eval`: what prompts score, on which tasks, by which ways; submissions.

`answers.py` has the predictions; this module prints them as JSON lines or hands
them to `submission.py`. docs/evaluation.md shows the lines.
"""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np

from xprompt_jax import (
    answers,
    artifacts,
    candidates,
    evaluation,
    mixtures,
    other_tasks,
    stored_prompts,
    submission,
)
from xprompt_jax import masks as masks_lib
from xprompt_jax.answers import Answers
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    SharedWeights,
    load_experiment,
    load_splits,
)
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import PromptMasks, UserError, require

MAJORITY_VOTE = "majority_vote"
MEAN_PROBABILITY = "mean_probability"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prompts:
  """The rows that are asked for: numbers in their file, seeds and tasks."""

  path: str
  numbers: list[int]
  seeds: list[int]
  tasks: list[str | None]
  prompt: np.ndarray
  masks: PromptMasks

  def take(self, row: int) -> "_Prompts":
    """One row alone."""
    index = np.array([row])
    return dataclasses.replace(
        self,
        numbers=[self.numbers[row]],
        seeds=[self.seeds[row]],
        tasks=[self.tasks[row]],
        prompt=self.prompt[index],
        masks=masks_lib.take_rows(self.masks, index),
    )


def _load_prompts(
    experiment: Experiment, prompt_file: str | None, row: int | None
) -> _Prompts:
  """Reads prompts and checks that the frozen weights are theirs."""
  prompt, masks, path = stored_prompts.load_prompts(
      experiment.config, experiment.workdir, prompt_file
  )
  numbers = list(range(len(prompt)))
  if row is not None:
    stored_prompts.check_row(row, path, len(prompt))
    numbers = [row]
  if prompt_file is None:
    stored_prompts.check_weights(experiment.workdir, experiment)
  stored_prompts.warn_of_other_weights(path, experiment)
  seeds, tasks = stored_prompts.row_labels(experiment, path, len(prompt))
  index = np.array(numbers, np.int64)
  return _Prompts(
      path=path,
      numbers=numbers,
      seeds=[seeds[number] for number in numbers],
      tasks=[tasks[number] for number in numbers],
      prompt=np.asarray(prompt)[index],
      masks=masks_lib.take_rows(masks, index),
  )


def evaluate(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    *,
    split: str | None = None,
    prompt_file: str | None = None,
    row: int | None = None,
    tasks: Sequence[str] = (),
    left_out: collections.Counter[str] | None = None,
    weights: SharedWeights | None = None,
) -> None:
  """Prints a JSON line of metrics for each prompt, and for all together.

  Args:
    config: the root config.
    workdir: of the run; its token cache is used.
    split: `train`, `validation` or `test`; None means test where there is
      one.
    prompt_file: a prompt to evaluate instead of the run's.
    row: which of its prompts; None means all.
    tasks: other tasks to evaluate on, as EVAL_TASKS names them; none means
      those.
    left_out: counts tasks that are left out with a line on stderr, because
      their answers are others; None refuses them.
    weights: of the task before; None loads them.
  """
  # What is wrong with a prompt is found before weights are loaded.
  stored_prompts.load_prompts(config, workdir, prompt_file)
  split = split or ("test" if config.task.test_split else "validation")
  require(
      getattr(config.task, f"{split}_split") is not None,
      f"--split={split}",
      f"{split.upper()}_SPLIT = None",
      "a split that the task has",
  )
  config = dataclasses.replace(
      config, eval_tasks=_eval_tasks(config, workdir, split, tasks, left_out)
  )
  experiment = load_experiment(config, workdir, roles=(split,), weights=weights)
  prompts = _load_prompts(experiment, prompt_file, row)
  tables = [experiment.rows(split, prompts.seeds, prompts.tasks)] + [
      experiment.rows_of([other] * len(prompts.seeds), prompts.seeds)
      for other in experiment.others.values()
  ]
  for rows in tables:
    found = answers.answer(experiment, rows, prompts.prompt, prompts.masks)
    for line in (*_row_lines(prompts, found), *_ensembles(prompts, found)):
      print(json.dumps(line))


def _eval_tasks(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    role: str,
    tasks: Sequence[str],
    left_out: collections.Counter[str] | None,
) -> tuple[str, ...]:
  """The other tasks to evaluate on, checked before weights are loaded."""
  names = tuple(dict.fromkeys(tasks or config.eval_tasks))
  if not names:
    return ()
  cache = (workdir / artifacts.CACHE, config.model.vocab_size)
  _, own = load_splits(config.task, *cache, (role,))
  found = []
  for name in names:
    try:
      other_tasks.load(
          config.task, own, [name], cache_dir=cache[0], vocab_size=cache[1]
      )
    except other_tasks.OtherTaskError as e:
      line = f"--task={name}: {e.why}" if tasks else str(e)
      if left_out is None or not e.other_answers:
        raise UserError(line) from e
      left_out[name] += 1
      print(f"{line}; left out", file=sys.stderr)
    else:
      found.append(name)
  return tuple(found)


def _facts(split: CachedSplit) -> dict[str, Any]:
  return {
      "task": split.task,
      "split": split.split,
      "num_examples": len(split),
  }


def _row_lines(prompts: _Prompts, found: Answers) -> Iterator[dict[str, Any]]:
  """What each row scores, by the way that counts and by the others."""
  tokens = masks_lib.kept_tokens(prompts.masks).tolist()
  pieces = masks_lib.kept_pieces(prompts.masks).tolist()
  for i, split in enumerate(found.splits):
    result = found.result(i)
    ways = {found.predict_by: result, **found.by_other_ways(i)}
    line = {
        "prompt": prompts.path,
        "row": prompts.numbers[i],
        **_facts(split),
        "kept_tokens": int(tokens[i]),
        "kept_pieces": int(pieces[i]),
        **answers.with_counts(result, split),
        "predict_by": found.predict_by,
        "ways": {
            way: answers.with_counts(metrics, split)
            for way, metrics in ways.items()
        },
    }
    if reasons := found.reasons(i):
      line["not_possible"] = reasons
    yield line


def _ensembles(prompts: _Prompts, found: Answers) -> Iterator[dict[str, Any]]:
  """What rows that read one split score together."""
  groups: dict[int, list[int]] = {}
  for i, split in enumerate(found.splits):
    groups.setdefault(id(split), []).append(i)
  for group in groups.values():
    if len(group) < 2:
      continue
    split = found.splits[group[0]]

    def line(
        name: str,
        way: str,
        texts: list[str],
        group: list[int] = group,
        split: CachedSplit = split,
    ) -> dict[str, Any]:
      metrics = evaluation.measure(split, texts)
      return {
          "prompt": prompts.path,
          "ensemble": name,
          "rows": [prompts.numbers[i] for i in group],
          **_facts(split),
          **answers.with_counts(metrics, split),
          "predict_by": way,
      }

    way = found.predict_by
    voted = answers.majority_vote([found.texts[way][i] for i in group])
    yield line(MAJORITY_VOTE, way, voted)
    way = candidates.RANK if way not in found.scores else way
    scores = found.scores[way]
    if all(i in scores for i in group):
      mean = candidates.mean_probabilities([scores[i] for i in group])
      yield line(MEAN_PROBABILITY, way, candidates.best(split, mean))


def submit(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    folder: str,
    *,
    prompt_file: str | None = None,
    row: int | None = None,
    weights: SharedWeights | None = None,
) -> None:
  """Writes predictions of the official test split for the leaderboard.

  Of a mixture each task has a file. Where rows read different tasks, a task's
  is by its own row, of the seed of the row that is asked for.

  Args:
    config: the root config.
    workdir: of the run; its token cache is used.
    folder: where the leaderboard's files go.
    prompt_file: a prompt to use instead of the run's.
    row: which of its prompts; None means the first.
    weights: of the task before; None loads them.

  Raises:
    UserError: the leaderboard does not know a task, or its test split is not
      whole; the files of the other tasks are written.
  """
  stored_prompts.load_prompts(config, workdir, prompt_file)
  # Recipes have no TEST_SPLIT where it has no labels.
  task = dataclasses.replace(
      config.task, test_split=config.task.test_split or "test"
  )
  _, splits = load_splits(
      task,
      workdir / artifacts.CACHE,
      config.model.vocab_size,
      ("test",),
      labelled=False,
  )
  whole = splits["test"]
  parts = whole.members if isinstance(whole, MixedSplit) else (whole,)
  known, failed = [], []
  for part in parts:
    try:
      submission.check_split(part.task, part.examples)
      known.append(part)
    except UserError as e:
      failed.append(str(e))
  if known:
    config = dataclasses.replace(config, eval_tasks=())
    experiment = dataclasses.replace(
        load_experiment(config, workdir, roles=(), weights=weights),
        splits=splits,
    )
    prompts = _load_prompts(experiment, prompt_file, None)
    stored_prompts.check_row(row or 0, prompts.path, len(prompts.numbers))
    for part in known:
      own = _row_of(prompts, row or 0, part.task)
      _submit_task(experiment, prompts.take(own), part, folder)
  if failed:
    raise UserError("; ".join(failed))


def _row_of(prompts: _Prompts, row: int, task: str) -> int:
  """The row that answers a task: of the same seed where tasks have their own."""
  if prompts.tasks[row] in (None, task):
    return row
  labels = list(zip(prompts.tasks, prompts.seeds, strict=True))
  return labels.index((task, prompts.seeds[row]))


def _submit_task(
    experiment: Experiment, prompts: _Prompts, split: CachedSplit, folder: str
) -> None:
  """Writes the file of one task and names it."""
  rows = experiment.rows_of([split], prompts.seeds)
  found = answers.answer(
      experiment, rows, prompts.prompt, prompts.masks, ways=()
  )
  texts = found.texts[found.predict_by][0]
  malformed = _malformed(split, texts)
  if malformed:
    some = mixtures.take(split, np.array(malformed))
    scores = candidates.score_table(
        prompts.prompt,
        prompts.masks,
        experiment.rows_of([some], prompts.seeds),
        candidates.RANK,
        **experiment.predicting,
    )
    best = candidates.best(some, scores[0])
    for i, text in zip(malformed, best, strict=True):
      texts[i] = text
  written = submission.write_submission(
      task=split.task,
      examples=split.examples,
      predictions=[split.postprocess(text, i) for i, text in enumerate(texts)],
      folder=folder,
  )
  replaced, by = len(malformed), "the answer that ranks first stands"
  if not malformed and written.num_malformed:
    replaced, by = written.num_malformed, f"{written.replacement} stands"
  if replaced:
    print(
        f"task {split.task}, split {split.split}: {replaced} of {len(texts)}"
        f" predictions were none of the task's answers; {by} in their place",
        file=sys.stderr,
    )
  line = {
      "prompt": prompts.path,
      "row": prompts.numbers[0],
      **_facts(split),
      "malformed": replaced,
      "file": str(written.path),
  }
  print(json.dumps(line))


def _malformed(split: CachedSplit, texts: Sequence[str]) -> list[int]:
  """Predictions that are none of the candidates, where every example has some.

  What else a task has to say of its answers is its postprocessor's.
  """
  if not all(split.candidates(i) for i in range(len(split))):
    return []
  return [i for i, text in enumerate(texts) if text not in split.candidates(i)]
