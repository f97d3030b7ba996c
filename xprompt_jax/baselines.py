"""A run of a baseline: tuned, folded, evaluated, with a summary as a search's.

What is particular to fine-tuning, prefix tuning or P-tuning stands in
`methods/`. Here a table of rows is trained as any other; what inference needs
of each row is written, read again and evaluated, so that a result is one of the
file. P-tuning leaves `tune/prompt.safetensors`, an ordinary prompt; the others
`tune/adapter.safetensors`: the T5's parameters that they replace or add, by
their names.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax import (
    answers,
    artifacts,
    correctness,
    methods,
    other_tasks,
    prompts,
    search,
    trained_leaves,
)
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.methods.protocol import Adapted, Baseline
from xprompt_jax.tickets import Table, Ticket, save_table
from xprompt_jax.trainer import TableTrainer
from xprompt_jax.types import PromptMasks

ADAPTER = "adapter.safetensors"


def _tickets(experiment: Experiment) -> list[Ticket]:
  """A row for each task and seed, as a search has them."""
  return [
      Ticket(seed=seed, task=task)
      for task in experiment.data.tasks
      for seed in experiment.config.seeds
  ]


def _adapt(experiment: Experiment, method: Baseline, leaves: Any) -> Adapted:
  """The model of one row, from its leaves without R."""
  leaves = jax.tree.map(jnp.asarray, leaves)
  return method.adapt(leaves, {}, experiment.model, experiment.frozen_params)


def _start(experiment: Experiment, method: Baseline, seeds: Sequence[int]):
  """Where the rows start: leaves [R, ...]; a row depends on its seed alone."""
  rows = {
      seed: method.initial(
          jax.random.key(seed),
          experiment.config.model,
          experiment.frozen_params,
      )
      for seed in dict.fromkeys(seeds)
  }
  return trained_leaves.stacked([rows[seed] for seed in seeds])


def _of_row(
    experiment: Experiment, adapted: Adapted
) -> tuple[Experiment, np.ndarray, PromptMasks]:
  """The experiment of one row: its parameters, and a table of its prompt."""
  config = experiment.config
  prompt, masks = prompts.zero_length_table(
      config.prompt.num_pieces, config.model.emb_dim
  )
  if adapted.prompt.shape[0]:
    prompt = adapted.prompt[None]
    masks = masks_lib.full_masks(
        1, adapted.prompt.shape[0], config.prompt.num_pieces
    )
  own = dataclasses.replace(experiment, frozen_params=adapted.params)
  return own, np.asarray(prompt), masks


def _validate(
    experiment: Experiment, rows: Sequence[Adapted], tasks: Sequence[str | None]
) -> list[dict[str, float]]:
  """The metrics on validation of each row, one after another."""
  found = []
  for adapted, task in zip(rows, tasks, strict=True):
    own, prompt, masks = _of_row(experiment, adapted)
    found += own.evaluate("validation", prompt, masks, [task])
  return found


def run_tune(
    experiment: Experiment, method: Baseline
) -> tuple[list[dict[str, Any]], list[Adapted]]:
  """Trains a row for each task and seed, all in one table.

  Args:
    experiment: what is loaded.
    method: the baseline.

  Returns:
    What result files say of each row, and its model as the files have it.
  """
  folder = experiment.workdir / artifacts.TUNE
  tickets = _tickets(experiment)
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
        "rows": _train(experiment, method, folder, tickets),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  return result["rows"], _read(experiment, folder, len(tickets))


def _train(
    experiment: Experiment,
    method: Baseline,
    folder: pathlib.Path,
    tickets: Sequence[Ticket],
) -> list[dict[str, Any]]:
  seeds = [ticket.seed for ticket in tickets]
  tasks = [ticket.task for ticket in tickets]

  def evaluate(trained: Any) -> list[dict[str, float]]:
    rows = [
        _adapt(experiment, method, trained_leaves.row_of(trained, row))
        for row in range(len(tickets))
    ]
    return _validate(experiment, rows, tasks)

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
      tensorboard=experiment.workdir / artifacts.TENSORBOARD,
      mesh=experiment.mesh,
  )
  start = _start(experiment, method, seeds)
  trained = trainer.train(start)
  _write(experiment, method, folder, tickets, start, trained.trained)
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
  is_prompt = method.name == "p_tuning"
  return {
      **ticket.as_json(),
      "kept_tokens": method.length if is_prompt else None,
      "kept_pieces": method.length * config.prompt.num_pieces
      if is_prompt
      else None,
      "tunable_parameters": trained,
      **({"inference_parameters": needed} if needed != trained else {}),
  }


def _write(
    experiment: Experiment,
    method: Baseline,
    folder: pathlib.Path,
    tickets: Sequence[Ticket],
    start: Any,
    trained: Any,
) -> None:
  """Folds the rows and writes what inference needs of them."""
  adapted = [
      _adapt(experiment, method, trained_leaves.row_of(trained, row))
      for row in range(len(tickets))
  ]
  if adapted[0].prompt.shape[0]:
    first = [
        _adapt(experiment, method, trained_leaves.row_of(start, row)).prompt
        for row in range(len(tickets))
    ]
    table = Table(
        tickets=tuple(tickets),
        prompt=np.stack([row.prompt for row in adapted]),
        masks=masks_lib.full_masks(
            len(tickets), method.length, experiment.config.prompt.num_pieces
        ),
    )
    save_table(folder / artifacts.PROMPT, table, start=np.stack(first))
    return
  frozen = trained_leaves.by_name(experiment.frozen_params)
  rows = [trained_leaves.by_name(row.params) for row in adapted]
  own = [n for n, leaf in rows[0].items() if leaf is not frozen.get(n)]
  artifacts.save_arrays(
      folder / ADAPTER,
      {name: np.stack([row[name] for row in rows]) for name in own},
  )


def _read(
    experiment: Experiment, folder: pathlib.Path, num_rows: int
) -> list[Adapted]:
  """What `_write` wrote, as the model of each row."""
  width = experiment.config.model.emb_dim
  if (folder / artifacts.PROMPT).exists():
    arrays, own = artifacts.load_arrays(folder / artifacts.PROMPT), {}
    prompt = arrays["prompt"]
  else:
    own = artifacts.load_arrays(folder / ADAPTER)
    prompt = np.zeros((num_rows, 0, width), np.float32)
  frozen = trained_leaves.by_name(experiment.frozen_params)
  return [
      Adapted(
          params=trained_leaves.nested(
              {**frozen, **{name: leaf[row] for name, leaf in own.items()}}
          ),
          prompt=prompt[row],
          visible=np.ones(prompt.shape[1], bool),
      )
      for row in range(num_rows)
  ]


def run_evaluate(
    experiment: Experiment,
    method: Baseline,
    lines: Sequence[dict[str, Any]],
    rows: Sequence[Adapted],
) -> list[dict[str, Any]]:
  """The baseline's results beside those of no prompt, on every split.

  Splits that only report are looked at here and nowhere else.

  Args:
    experiment: what is loaded.
    method: the baseline.
    lines: from `run_tune`, as are
    rows: its models.

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
  parts = []
  for adapted, task in zip(rows, tasks, strict=True):
    own, prompt, masks = _of_row(experiment, adapted)
    parts.append(answers.finals(own, prompt, masks, [task]))
  finals = answers.join(parts)
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
  correctness.save(
      folder / correctness.CORRECT,
      {search.NO_PROMPT: without.right, method.name: finals.right},
  )
  artifacts.write_json(
      folder / artifacts.RESULT,
      {
          "config": config,
          "methods": found,
          "seconds": round(time.monotonic() - started, 3),
      },
  )
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
  config = experiment.config
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
  lines, rows = run_tune(experiment, method)
  found = run_evaluate(experiment, method, lines, rows)
  summary = {
      "schema": search.SCHEMA,
      "config": whole,
      "task": config.task.name,
      "num_examples": experiment.data.num_examples(config.seeds[0]),
      **search.members_of(experiment),
      "prompt_length": method.length,
      "num_pieces": config.prompt.num_pieces,
      "methods": found,
      "tickets_tried": 0,
      "seconds": search.seconds_of(experiment),
  }
  artifacts.write_json(experiment.workdir / artifacts.RESULT, summary)
  return summary
