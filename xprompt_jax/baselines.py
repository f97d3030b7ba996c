"""A run of a baseline: tuned, folded, evaluated, with a summary as a search's.

What is particular to fine-tuning, prefix tuning or P-tuning stands in
`methods/`. Here rows are trained in a table as any others, or one after another
where each is a model; what inference needs of each row is written, read again
and evaluated, so that a result is one of the file. P-tuning leaves
`tune/prompt.safetensors`, an ordinary prompt; the others
`adapter.safetensors`: the T5's parameters that they replace or add, by their
names.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from xprompt_jax import (
    answers,
    artifacts,
    baseline_rows,
    methods,
    other_tasks,
    prompts,
    search,
    trained_leaves,
)
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.methods.protocol import Adapted, Baseline
from xprompt_jax.tickets import Ticket
from xprompt_jax.trainer import TableTrainer
from xprompt_jax.types import PromptMasks


def _of_row(
    experiment: Experiment, adapted: Adapted
) -> tuple[Experiment, np.ndarray, PromptMasks]:
  """The experiment of one row: its parameters, and a table of its prompt."""
  prompt, masks = prompts.zero_length_table(
      baseline_rows.NUM_PIECES, experiment.config.model.emb_dim
  )
  if adapted.prompt.shape[0]:
    prompt = adapted.prompt[None]
    masks = masks_lib.full_masks(
        1, adapted.prompt.shape[0], baseline_rows.NUM_PIECES
    )
  own = dataclasses.replace(experiment, frozen_params=adapted.params)
  return own, np.asarray(prompt), masks


def validate(
    experiment: Experiment, adapted: Adapted, task: str | None
) -> dict[str, float]:
  """The metrics of one row on validation.

  Args:
    experiment: what is loaded.
    adapted: the row's model.
    task: what it reads, as for `Experiment.rows`.
  """
  own, prompt, masks = _of_row(experiment, adapted)
  return own.evaluate("validation", prompt, masks, [task])[0]


def _stage(
    experiment: Experiment,
    folder: pathlib.Path,
    tickets: Sequence[Ticket],
    train: Callable[[], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
  """What result files say of each row; trained unless that is done."""
  config = {
      **experiment.stage_config,
      "tickets": [ticket.as_json() for ticket in tickets],
  }
  result = artifacts.finished_result(folder, config)
  if result is None:
    started = time.monotonic()
    # The state belongs to this config; one that was stopped is checked too.
    state = folder / artifacts.STARTED
    if state.exists():
      artifacts.check_config(state, artifacts.read_json(state), config)
    else:
      artifacts.write_json(state, config)
    result = {
        "config": config,
        "rows": train(),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  return result["rows"]


def run_tune(experiment: Experiment, method: Baseline) -> list[dict[str, Any]]:
  """Trains a row for each task and seed.

  They are one table, or tables one after another in `tune/row_R/`, R their
  first row, where the method says how many rows memory should hold.

  Args:
    experiment: what is loaded.
    method: the baseline.

  Returns:
    What result files say of each row; `baseline_rows.read_row` has its model.
  """
  folder = experiment.workdir / artifacts.TUNE
  tickets = baseline_rows.tickets_of(experiment)
  parts = baseline_rows.parts_of(method, folder, tickets)

  def train_part(where, own):
    rows = _stage(
        experiment, where, own, lambda: _train(experiment, method, where, own)
    )
    _drop_state(method, where)
    return rows

  def train():
    rows = [row for where, own in parts for row in train_part(where, own)]
    lines = []
    for where, own in parts:
      first = tickets.index(own[0])
      own_lines = artifacts.read_json_lines(where / artifacts.METRICS)
      lines += [{**line, "row": first + line["row"]} for line in own_lines]
    artifacts.write_json_lines(folder / artifacts.METRICS, lines)
    return rows

  if len(parts) > 1:
    return _stage(experiment, folder, tickets, train)
  return train_part(folder, tickets)


def _drop_state(method: Baseline, folder: pathlib.Path) -> None:
  """Removes the state of a table that is done, where it holds whole models."""
  if method.rows_at_once is not None:
    (folder / artifacts.STATE).unlink(missing_ok=True)


def _train(
    experiment: Experiment,
    method: Baseline,
    folder: pathlib.Path,
    tickets: Sequence[Ticket],
) -> list[dict[str, Any]]:
  seeds = [ticket.seed for ticket in tickets]
  tasks = [ticket.task for ticket in tickets]

  def evaluate(trained: Any) -> list[dict[str, float]]:
    return [
        validate(
            experiment,
            baseline_rows.adapt(
                experiment, method, trained_leaves.row_of(trained, row)
            ),
            task,
        )
        for row, task in enumerate(tasks)
    ]

  name = folder.relative_to(experiment.workdir)
  trainer = TableTrainer(
      config=experiment.config.train,
      optimizer=experiment.config.optimizer,
      method=method,
      model=experiment.model,
      frozen_params=experiment.frozen_params,
      constants={},
      rows=experiment.rows("train", seeds, tasks),
      evaluate=evaluate,
      folder=folder,
      tensorboard=experiment.workdir / artifacts.TENSORBOARD / name.parent,
      mesh=experiment.mesh,
  )
  # No name holds on to the start: the trainer lets go of it.
  trained = trainer.train(baseline_rows.start_of(experiment, method, seeds))
  baseline_rows.write(experiment, method, folder, tickets, trained.trained)
  return [
      {**_line(experiment, method, ticket), "validation": metrics}
      for ticket, metrics in zip(tickets, trained.metrics, strict=True)
  ]


def _line(
    experiment: Experiment, method: Baseline, ticket: Ticket
) -> dict[str, Any]:
  """What result files say of a row beside its metrics."""
  config = experiment.config
  trained = method.trained_parameters(config.model)
  needed = method.inference_parameters(config.model)
  return {
      **ticket.as_json(),
      "kept_tokens": method.length if method.makes_prompt else None,
      "kept_pieces": None,
      "tunable_parameters": trained,
      **({"inference_parameters": needed} if needed != trained else {}),
  }


def _finals(
    experiment: Experiment, adapted: Adapted, task: str | None
) -> answers.Finals:
  """The metrics of one row on the splits that report."""
  own, prompt, masks = _of_row(experiment, adapted)
  return answers.finals(own, prompt, masks, [task])


def run_evaluate(
    experiment: Experiment,
    method: Baseline,
    lines: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
  """The baseline's results beside those of no prompt, on every split.

  Splits that only report are read here and nowhere else.

  Args:
    experiment: what is loaded.
    method: the baseline.
    lines: from `run_tune`.

  Returns:
    `methods` of docs/files.md.
  """
  folder = experiment.workdir / artifacts.EVALUATE
  tasks = [line.get("task") for line in lines]
  config = {
      **experiment.stage_config,
      "methods": [method.name],
      "test": experiment.split_fingerprints("heldout", "test"),
      **search.others_of(experiment),
  }
  other_tasks.check_unchanged(folder / artifacts.RESULT, config)
  result = artifacts.finished_result(folder, config)
  if result is not None:
    return result["methods"]
  started = time.monotonic()
  without = answers.join(
      [search.without_prompt(experiment, t) for t in experiment.data.tasks]
  )
  # One row in memory at a time: none has a name.
  finals = answers.join(
      [
          _finals(
              experiment, baseline_rows.read_row(experiment, method, row), task
          )
          for row, task in enumerate(tasks)
      ]
  )
  found = [
      {"method": search.NO_PROMPT, "rows": without.lines},
      {
          "method": method.name,
          "rows": [
              {**line, **final}
              for line, final in zip(lines, finals.lines, strict=True)
          ],
      },
  ]
  right = {search.NO_PROMPT: without.right, method.name: finals.right}
  search.write_evaluation(folder, config, found, right, started)
  return found


def run_experiment(experiment: Experiment) -> dict[str, Any]:
  """All stages of a baseline, to the summary that `report` reads.

  Args:
    experiment: what is loaded; its METHOD is a baseline.

  Returns:
    The summary in `WORKDIR/result.json`; docs/files.md describes it.

  Raises:
    UserError: WORKDIR belongs to another config, or a stage cannot go on.
  """
  config = dataclasses.replace(
      experiment.config,
      prompt=dataclasses.replace(
          experiment.config.prompt, num_pieces=baseline_rows.NUM_PIECES
      ),
  )
  experiment = dataclasses.replace(experiment, config=config)
  method = methods.build_baseline(config.method, config.prompt.length)
  whole = {
      **experiment.stage_config,
      "test": experiment.split_fingerprints("heldout", "test"),
      **search.others_of(experiment),
  }
  other_tasks.check_unchanged(experiment.workdir / artifacts.RESULT, whole)
  summary = artifacts.finished_result(experiment.workdir, whole)
  if summary is not None:
    return summary
  lines = run_tune(experiment, method)
  found = run_evaluate(experiment, method, lines)
  summary = {
      "schema": search.SCHEMA,
      "config": whole,
      "task": config.task.name,
      "num_examples": experiment.data.num_examples(config.seeds[0]),
      **search.members_of(experiment),
      "prompt_length": method.length,
      "num_pieces": baseline_rows.NUM_PIECES,
      "methods": found,
      "tickets_tried": 0,
      "seconds": search.seconds_of(experiment),
  }
  artifacts.write_json(experiment.workdir / artifacts.RESULT, summary)
  return summary
