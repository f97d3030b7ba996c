"""The stages of XPrompt, each a function over named files.

A stage reads what earlier stages left, writes in its own folder, and writes
`result.json` last. Run again it returns what is there; with another config it
refuses. `search.py` decides which stages run on which tickets.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from xprompt_jax import artifacts, prompts, pruning, scoring
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.trainer import TableTrainer
from xprompt_jax.types import PromptMasks, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
  """Where a row's masks come from.

  Attributes:
    seed: of the tuned prompt, and of the data order when it is retrained.
    token_ratio: compression ratio of its tokens; None if they were not pruned.
    piece_ratio: the same of its pieces.
  """

  seed: int
  token_ratio: float | None = None
  piece_ratio: float | None = None

  @property
  def granularity(self) -> str:
    """`none`, `token`, `piece`, or `token+piece`."""
    names = [
        name
        for name in pruning.GRANULARITIES
        if getattr(self, f"{name}_ratio") is not None
    ]
    return "+".join(names) or "none"

  def pruned(self, granularity: str, ratio: float) -> "Ticket":
    """The ticket that prunes this one further."""
    if granularity == "token":
      return dataclasses.replace(self, token_ratio=ratio)
    return dataclasses.replace(self, piece_ratio=ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Tickets with their prompts and masks, row for row.

  Attributes:
    tickets: R tickets.
    prompt: [R, P, H], unmasked where it was tuned, rewound where it was not.
    masks: [R, P] and [R, P, K].
    validation: R results of the best step; empty before training.
  """

  tickets: tuple[Ticket, ...]
  prompt: np.ndarray
  masks: PromptMasks
  validation: tuple[dict[str, float], ...] = ()

  def take(self, rows: Sequence[int]) -> "Table":
    """Some rows, in the order given; a row may be taken more than once."""
    index = np.array(rows, np.int64)
    return Table(
        tickets=tuple(self.tickets[r] for r in rows),
        prompt=self.prompt[index],
        masks=masks_lib.take_rows(self.masks, index),
        validation=tuple(self.validation[r] for r in rows if self.validation),
    )

  def row_of(self, ticket: Ticket) -> int:
    """Where a ticket stands."""
    return self.tickets.index(ticket)


def concatenate(tables: Sequence[Table]) -> Table:
  """The rows of several tables, one after another."""
  return Table(
      tickets=tuple(t for table in tables for t in table.tickets),
      prompt=np.concatenate([table.prompt for table in tables]),
      masks=PromptMasks(
          token_mask=np.concatenate([t.masks.token_mask for t in tables]),
          piece_mask=np.concatenate([t.masks.piece_mask for t in tables]),
      ),
      validation=tuple(v for table in tables for v in table.validation),
  )


def ticket_lines(table: Table) -> list[dict[str, Any]]:
  """What result files say of each row."""
  masks = table.masks
  sizes = zip(
      masks_lib.kept_tokens(masks).tolist(),
      masks_lib.kept_pieces(masks).tolist(),
      masks_lib.tunable_parameters(masks, table.prompt.shape[2]).tolist(),
      strict=True,
  )
  lines = []
  for row, (tokens, pieces, parameters) in enumerate(sizes):
    lines.append(
        {
            **dataclasses.asdict(table.tickets[row]),
            "kept_tokens": tokens,
            "kept_pieces": pieces,
            "tunable_parameters": parameters,
        }
    )
    if table.validation:
      lines[-1]["validation"] = table.validation[row]
  return lines


def save_table(path: pathlib.Path, table: Table, **more: np.ndarray) -> None:
  """Writes prompts and masks of a table, and other arrays beside them."""
  artifacts.save_arrays(
      path,
      {
          "prompt": table.prompt,
          "token_mask": table.masks.token_mask,
          "piece_mask": table.masks.piece_mask,
          **more,
      },
  )


def _load_masks(arrays: dict[str, np.ndarray]) -> PromptMasks:
  return PromptMasks(
      token_mask=arrays["token_mask"], piece_mask=arrays["piece_mask"]
  )


def _trained(experiment: Experiment, name: str, start: Table) -> Table:
  """Trains the rows of `start` in their folder, unless that is done."""
  folder = experiment.workdir / name
  config = {
      **experiment.stage_config,
      "start": artifacts.digest_arrays({"prompt": start.prompt}),
      "masks": artifacts.digest_arrays(dataclasses.asdict(start.masks)),
      "tickets": [dataclasses.asdict(t) for t in start.tickets],
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
  trainer = TableTrainer(
      config=experiment.config.train,
      optimizer=experiment.config.optimizer,
      model=experiment.model,
      frozen_params=experiment.frozen_params,
      masks=start.masks,
      rows=experiment.rows("train", [t.seed for t in start.tickets]),
      evaluate=lambda prompt: experiment.evaluate(
          "validation", prompt, start.masks
      ),
      folder=folder,
      tensorboard=experiment.workdir / artifacts.TENSORBOARD,
      mesh=experiment.mesh,
  )
  trained = trainer.train(start.prompt)
  table = dataclasses.replace(
      start, prompt=trained.prompt, validation=tuple(trained.metrics)
  )
  save_table(folder / artifacts.PROMPT, table, start=start.prompt)
  return table


def initial_table(experiment: Experiment) -> Table:
  """One untrained prompt for each seed, nothing pruned: [S, P, H]."""
  config = experiment.config
  embedding = np.asarray(
      experiment.frozen_params["token_embedder"]["embedding"]
  )
  prompt = prompts.initial_prompts(
      config.prompt, config.seeds, embedding, experiment.vocabulary
  )
  return Table(
      tickets=tuple(Ticket(seed=seed) for seed in config.seeds),
      prompt=prompt,
      masks=masks_lib.full_masks(
          len(config.seeds), config.prompt.length, config.prompt.num_pieces
      ),
  )


def run_tune(experiment: Experiment) -> Table:
  """Plain prompt tuning: one prompt for each seed, all in one table.

  Returns:
    The best checkpoint of each seed, [S, P, H].
  """
  return _trained(experiment, artifacts.TUNE, initial_table(experiment))


def run_score(
    experiment: Experiment, granularity: str, table: Table
) -> dict[str, np.ndarray]:
  """Importance of every unit of a table's prompts at their current masks.

  Args:
    experiment: what is loaded.
    granularity: `token` or `piece`; names the folder. Both scores are written.
    table: tuned prompts and the masks to differentiate at.

  Returns:
    `token_scores` [R, P] and `piece_scores` [R, P, K].
  """
  folder = experiment.workdir / artifacts.score_folder(granularity)
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": table.prompt}),
      "masks": artifacts.digest_arrays(dataclasses.asdict(table.masks)),
  }
  if artifacts.finished_result(folder, config) is None:
    started = time.monotonic()
    token_scores, piece_scores = scoring.score_table(
        table.prompt,
        table.masks,
        experiment.rows("train", [t.seed for t in table.tickets]),
        model=experiment.model,
        frozen_params=experiment.frozen_params,
        batch_size=experiment.whole_batches(experiment.config.score_batch_size),
        mesh=experiment.mesh,
    )
    require(
        bool(
            np.isfinite(token_scores).all() and np.isfinite(piece_scores).all()
        ),
        f"{folder}: importance scores",
        "NaN or infinity",
        "finite numbers; try a smaller OptimizerConfig.learning_rate",
    )
    artifacts.save_arrays(
        folder / artifacts.SCORES,
        {"token_scores": token_scores, "piece_scores": piece_scores},
    )
    result = {
        "config": config,
        "rows": [dataclasses.asdict(ticket) for ticket in table.tickets],
        "num_examples": len(experiment.splits["train"]),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  return artifacts.load_arrays(folder / artifacts.SCORES)


def run_prune(
    experiment: Experiment,
    granularity: str,
    table: Table,
    scores: dict[str, np.ndarray],
) -> Table:
  """Every ratio of the search space applied to every row of a table.

  Args:
    experiment: what is loaded.
    granularity: which masks to prune, by which ratios.
    table: R tuned prompts with the masks they were scored at.
    scores: from `run_score` on the same table.

  Returns:
    R x ratios rows, those of one ticket next to each other: the same prompts,
    and masks with the pruned units 0.
  """
  folder = experiment.workdir / artifacts.prune_folder(granularity)
  search = experiment.config.search
  config = {
      "ratios": search.ratios(granularity),
      "piece_scope": search.piece_scope if granularity == "piece" else None,
      "scores": artifacts.digest_arrays(scores),
      "masks": artifacts.digest_arrays(dataclasses.asdict(table.masks)),
      "tickets": [dataclasses.asdict(t) for t in table.tickets],
  }
  ratios = search.ratios(granularity)
  rows = [r for r in range(len(table.tickets)) for _ in ratios]
  tickets = tuple(
      ticket.pruned(granularity, ratio)
      for ticket in table.tickets
      for ratio in ratios
  )
  if artifacts.finished_result(folder, config) is None:
    pruned = [
        _prune_row(search, granularity, table, row, ratio, scores)
        for row in range(len(table.tickets))
        for ratio in ratios
    ]
    masks = PromptMasks(
        token_mask=np.stack([m.token_mask for m in pruned]),
        piece_mask=np.stack([m.piece_mask for m in pruned]),
    )
    artifacts.save_arrays(folder / artifacts.MASKS, dataclasses.asdict(masks))
    candidates = Table(tickets=tickets, prompt=table.prompt[rows], masks=masks)
    result = {"config": config, "rows": ticket_lines(candidates)}
    artifacts.write_json(folder / artifacts.RESULT, result)
  masks = _load_masks(artifacts.load_arrays(folder / artifacts.MASKS))
  return Table(tickets=tickets, prompt=table.prompt[rows], masks=masks)


def _prune_row(
    search: pruning.SearchConfig,
    granularity: str,
    table: Table,
    row: int,
    ratio: float,
    scores: dict[str, np.ndarray],
) -> PromptMasks:
  masks = PromptMasks(
      token_mask=np.asarray(table.masks.token_mask)[row],
      piece_mask=np.asarray(table.masks.piece_mask)[row],
  )
  if granularity == "token":
    return pruning.prune_tokens(scores["token_scores"][row], masks, ratio)
  return pruning.prune_pieces(
      scores["piece_scores"][row], masks, ratio, search.piece_scope
  )


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
  prompt = candidates.prompt
  if experiment.config.search.rewind_to == "initial":
    initial = initial_table(experiment)
    seeds = [ticket.seed for ticket in initial.tickets]
    prompt = initial.prompt[[seeds.index(t.seed) for t in candidates.tickets]]
  start = np.asarray(masks_lib.apply_masks(prompt, candidates.masks))
  return _trained(
      experiment, name, dataclasses.replace(candidates, prompt=start)
  )
