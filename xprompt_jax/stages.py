"""The stages of XPrompt, each a function over named files.

A stage reads what earlier stages left, writes in its own folder, and writes
`result.json` last. Run again it returns what is there; with another config it
refuses. `search.py` decides which stages run on which tickets.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from xprompt_jax import artifacts, importance, prompts, pruning, scoring
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.t5x_engine import requirements
from xprompt_jax.tickets import Table, Ticket, save_table, ticket_lines
from xprompt_jax.trainer import TableTrainer
from xprompt_jax.types import PromptMasks, require


def run_training(experiment: Experiment, name: str, start: Table) -> Table:
  """Trains the rows of a table, all together or, inside T5X, one by one.

  Args:
    experiment: what is loaded.
    name: folder, under WORKDIR.
    start: where the prompts start, with their masks.

  Returns:
    The best checkpoint of each row.
  """
  folder = experiment.workdir / name
  config = {
      **experiment.stage_config,
      "start": artifacts.digest_arrays({"prompt": start.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(start.masks)),
      "tickets": [t.as_json() for t in start.tickets],
  }
  result = artifacts.finished_result(folder, config)
  if result is None:
    started = time.monotonic()
    table = _train(experiment, folder, start, config)
    result = {
        "config": config,
        "rows": ticket_lines(table),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  arrays = artifacts.load_arrays(folder / artifacts.PROMPT)
  return Table(
      tickets=start.tickets,
      prompt=arrays["prompt"],
      masks=start.masks,
      validation=tuple(row["validation"] for row in result["rows"]),
  )


def _train(
    experiment: Experiment,
    folder: pathlib.Path,
    start: Table,
    config: dict[str, Any],
) -> Table:
  # The state belongs to this config; a stage that was stopped is checked too.
  started = folder / artifacts.STARTED
  if started.exists():
    artifacts.check_config(started, artifacts.read_json(started), config)
  else:
    artifacts.write_json(started, config)
  trained = _trainer(experiment, folder, start).train({"prompt": start.prompt})
  table = dataclasses.replace(
      start,
      prompt=trained.trained["prompt"],
      validation=tuple(trained.metrics),
  )
  save_table(folder / artifacts.PROMPT, table, start=start.prompt)
  return table


def _trainer(experiment: Experiment, folder: pathlib.Path, start: Table) -> Any:
  """What trains a table."""
  common: dict[str, Any] = {
      "config": experiment.config.train,
      "constants": start.masks,
      "rows": experiment.rows("train", start.seeds, start.tasks),
      "folder": folder,
      "tensorboard": experiment.workdir / artifacts.TENSORBOARD,
  }
  if experiment.config.engine == requirements.NATIVE:
    return TableTrainer(
        **common,
        optimizer=experiment.config.optimizer,
        model=experiment.model,
        frozen_params=experiment.frozen_params,
        mesh=experiment.mesh,
        method=PromptTuning(length=start.prompt.shape[1]),
        evaluate=lambda trained: experiment.evaluate(
            "validation", trained["prompt"], start.masks, start.tasks
        ),
    )
  # Only who asks for it needs T5X.
  from xprompt_jax.t5x_engine import table_trainer

  def evaluate(row: int, trained: Any) -> dict[str, float]:
    masks = masks_lib.take_rows(start.masks, np.array([row]))
    tasks = [start.tasks[row]]
    return experiment.evaluate("validation", trained["prompt"], masks, tasks)[0]

  return table_trainer.RowByRowTrainer(
      **common, engines=experiment.t5x_engines, evaluate=evaluate
  )


def initial_table(experiment: Experiment) -> Table:
  """One untrained prompt for each task and seed, nothing pruned: [R, P, H].

  A seed starts from the same values on every task.
  """
  config = experiment.config
  prompt = initial_prompts(experiment, config.seeds, config.prompt.length)
  tickets = tuple(
      Ticket(seed=seed, task=task)
      for task in experiment.data.tasks
      for seed in config.seeds
  )
  return Table(
      tickets=tickets,
      prompt=np.tile(prompt, (len(tickets) // len(config.seeds), 1, 1)),
      masks=masks_lib.full_masks(
          len(tickets), config.prompt.length, config.prompt.num_pieces
      ),
  )


def initial_prompts(
    experiment: Experiment, seeds: Sequence[int], length: int
) -> np.ndarray:
  """The values that a run of this PROMPT_LENGTH starts from: [R, P, H]."""
  embedding = np.asarray(
      experiment.frozen_params["token_embedder"]["embedding"]
  )
  config = dataclasses.replace(experiment.config.prompt, length=length)
  return prompts.initial_prompts(
      config, seeds, embedding, experiment.vocabulary
  )


def run_tune(experiment: Experiment) -> Table:
  """Plain prompt tuning: one prompt for each task and seed, in one table.

  Returns:
    The best checkpoint of each, [R, P, H].
  """
  return run_training(experiment, artifacts.TUNE, initial_table(experiment))


def run_score(
    experiment: Experiment,
    granularity: str,
    table: Table,
    folder: str | None = None,
) -> dict[str, np.ndarray]:
  """Importance of every unit of a table's prompts at their current masks.

  Args:
    experiment: what is loaded.
    granularity: `token` or `piece`; names the folder. Both scores are written.
    table: tuned prompts and the masks to differentiate at.
    folder: under WORKDIR; None names it by the granularity.

  Returns:
    `token_scores` [R, P] and `piece_scores` [R, P, K]; `token_signed` and
    `piece_signed` where the search asks for them.
  """
  where = experiment.workdir / (folder or artifacts.score_folder(granularity))
  signed = "signed" in experiment.config.search.importances
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": table.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(table.masks)),
      **({"signed": True} if signed else {}),
  }
  if artifacts.finished_result(where, config) is None:
    started = time.monotonic()
    scores = scoring.score_arrays(
        table.prompt,
        table.masks,
        experiment.rows("train", table.seeds, table.tasks),
        **scoring_settings(experiment),
        signed=signed,
    )
    require(
        all(bool(np.isfinite(array).all()) for array in scores.values()),
        f"{where}: importance scores",
        "NaN or infinity",
        "finite numbers; try a smaller OptimizerConfig.learning_rate",
    )
    artifacts.save_arrays(where / artifacts.SCORES, scores)
    result = {
        "config": config,
        "rows": [ticket.as_json() for ticket in table.tickets],
        "num_examples": _num_scored(experiment, table),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(where / artifacts.RESULT, result)
  return artifacts.load_arrays(where / artifacts.SCORES)


def task_names(experiment: Experiment, table: Table) -> list[str]:
  """The task of each row by its name, also where all rows read one."""
  return [task or experiment.config.task.name for task in table.tasks]


def scoring_settings(experiment: Experiment) -> dict[str, Any]:
  """What every function of `scoring` is told."""
  return {
      "model": experiment.model,
      "frozen_params": experiment.frozen_params,
      "batch_size": experiment.whole_batches(
          experiment.config.score_batch_size
      ),
      "mesh": experiment.mesh,
  }


def _num_scored(experiment: Experiment, table: Table) -> int | dict[str, int]:
  """Training examples that scores are the mean over, by task if they differ."""
  seed = table.seeds[0]
  counts = {
      task: experiment.data.num_examples(seed, task)["train"]
      for task in dict.fromkeys(table.tasks)
  }
  by_task = {task: count for task, count in counts.items() if task is not None}
  return by_task or next(iter(counts.values()))


def run_prune(
    experiment: Experiment,
    granularity: str,
    table: Table,
    scores: dict[str, np.ndarray],
    folder: str | None = None,
) -> Table:
  """Every ratio of the search space applied to every row of a table.

  Args:
    experiment: what is loaded.
    granularity: which masks to prune, by which ratios.
    table: R tuned prompts with the masks they were scored at.
    scores: from `run_score` on the same table; what else rows are ranked by
      is computed here.
    folder: under WORKDIR; None names it by the granularity.

  Returns:
    R x ratios rows, those of one ticket next to each other: the same prompts,
    and masks with the pruned units 0.
  """
  where = experiment.workdir / (folder or artifacts.prune_folder(granularity))
  search = experiment.config.search
  scores = importance.chosen_scores(
      [ticket.importance for ticket in table.tickets],
      table.seeds,
      task_names(experiment, table),
      table.prompt,
      table.masks,
      scores,
  )
  config = {
      "ratios": search.ratios(granularity),
      "piece_scope": search.piece_scope if granularity == "piece" else None,
      "scores": artifacts.digest_arrays(scores),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(table.masks)),
      "tickets": [t.as_json() for t in table.tickets],
  }
  ratios = search.ratios(granularity)
  rows = [r for r in range(len(table.tickets)) for _ in ratios]
  tickets = tuple(
      ticket.pruned(granularity, ratio)
      for ticket in table.tickets
      for ratio in ratios
  )
  if artifacts.finished_result(where, config) is None:
    masks = stack_masks(
        [
            prune_row(experiment, granularity, table, row, ratio, scores)
            for row in range(len(table.tickets))
            for ratio in ratios
        ]
    )
    artifacts.save_arrays(where / artifacts.MASKS, masks_lib.as_arrays(masks))
    candidates = Table(tickets=tickets, prompt=table.prompt[rows], masks=masks)
    result = {"config": config, "rows": ticket_lines(candidates)}
    artifacts.write_json(where / artifacts.RESULT, result)
  masks = masks_lib.from_arrays(artifacts.load_arrays(where / artifacts.MASKS))
  return Table(tickets=tickets, prompt=table.prompt[rows], masks=masks)


def prune_row(
    experiment: Experiment,
    granularity: str,
    table: Table,
    row: int,
    ratio: float,
    scores: Mapping[str, np.ndarray],
) -> PromptMasks:
  """One row of a table with one ratio applied: masks [P] and [P, K]."""
  masks = jax.tree.map(lambda mask: np.asarray(mask)[row], table.masks)
  if granularity == "token":
    return pruning.prune_tokens(scores["token_scores"][row], masks, ratio)
  scope = experiment.config.search.piece_scope
  return pruning.prune_pieces(scores["piece_scores"][row], masks, ratio, scope)


def stack_masks(rows: Sequence[PromptMasks]) -> PromptMasks:
  """The masks of single rows as those of a table: [R, P] and [R, P, K]."""
  return jax.tree.map(lambda *masks: np.stack(masks), *rows)


def run_rewind(experiment: Experiment, name: str, candidates: Table) -> Table:
  """Rewinds tickets and trains them once more, all in one table.

  Kept entries go back to their value in the tuned prompt, or in the initial
  one where the config says so; pruned ones start at zero and stay there. The
  optimizer is fresh and the learning strategy is that of tuning.

  Args:
    experiment: what is loaded.
    name: folder, under WORKDIR.
    candidates: tickets with masks; their prompts are the tuned ones.

  Returns:
    The best checkpoint of each ticket.
  """
  return run_training(experiment, name, rewound(experiment, candidates))


def rewound(experiment: Experiment, candidates: Table) -> Table:
  """Tickets at their rewind point times their masks, not yet trained."""
  prompt = candidates.prompt
  if experiment.config.search.rewind_to == "initial":
    initial = initial_table(experiment)
    rows = [initial.row_of(ticket.unpruned) for ticket in candidates.tickets]
    prompt = initial.prompt[rows]
  start = np.asarray(masks_lib.apply_masks(prompt, candidates.masks))
  return dataclasses.replace(candidates, prompt=start)
