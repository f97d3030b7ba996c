"""Which tickets are tried, which one wins, and what the whole run found.

`linear` is the paper's search: the best token ratio first, then the best piece
ratio given it. `grid` trains all pairs, and each granularity alone. Every
table of a search trains at once, all seeds included.
"""

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

from xprompt_jax import (
    answers,
    artifacts,
    other_tasks,
    prompts,
    stages,
    tickets,
)
from xprompt_jax.experiment import Experiment
from xprompt_jax.tickets import Table, Ticket

# Raised when a reader of older summaries would read newer ones wrongly.
SCHEMA = 1
NO_PROMPT = "no_prompt"
PROMPT_TUNING = "prompt_tuning"
XPROMPT = "xprompt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What a search leaves.

  Attributes:
    tuned: plain prompt tuning, a row for each task and seed.
    tried: by search folder, every ticket that was trained.
    levels: by granularity (`token`, `piece`, `token+piece`), each seed's best
      ticket on validation; ties go to the one tried first.
  """

  tuned: Table
  tried: Mapping[str, Table]
  levels: Mapping[str, Table]

  @property
  def winners(self) -> Table:
    """The best ticket of each seed at the finest granularity searched."""
    return list(self.levels.values())[-1]


def best_rows(table: Table, granularity: str) -> list[int]:
  """The best row of each task and seed among the tickets of one granularity.

  Args:
    table: trained tickets.
    granularity: as `Ticket.granularity` names it.

  Returns:
    A row for each task and seed, in the order they first stand in. Among equal
    validation scores the row that stands first wins.
  """
  best: dict[Ticket, int] = {}
  for row, ticket in enumerate(table.tickets):
    if ticket.granularity != granularity:
      continue
    score = table.validation[row]["score"]
    leader = best.get(ticket.unpruned)
    if leader is None or score > table.validation[leader]["score"]:
      best[ticket.unpruned] = row
  return list(best.values())


def _run_linear(experiment: Experiment, tuned: Table) -> Found:
  base, tried, levels = tuned, {}, {}
  for granularity in experiment.config.search.granularities:
    scores = stages.run_score(experiment, granularity, base)
    candidates = stages.run_prune(experiment, granularity, base, scores)
    folder = artifacts.search_folder(granularity)
    tried[folder] = stages.run_rewind(experiment, folder, candidates)
    name = tried[folder].tickets[0].granularity
    levels[name] = tried[folder].take(best_rows(tried[folder], name))
    # The next granularity is scored at the tuned prompt behind these masks.
    base = dataclasses.replace(levels[name], prompt=tuned.prompt, validation=())
  return Found(tuned=tuned, tried=tried, levels=levels)


def _run_grid(experiment: Experiment, tuned: Table) -> Found:
  granularities = experiment.config.search.granularities
  candidates: list[Table] = []
  if "token" in granularities:
    scores = stages.run_score(experiment, "token", tuned)
    candidates.append(stages.run_prune(experiment, "token", tuned, scores))
  if "piece" in granularities:
    base = tickets.concatenate(
        [
            dataclasses.replace(table, validation=())
            for table in (tuned, *candidates)
        ]
    )
    scores = stages.run_score(experiment, "piece", base)
    candidates.append(stages.run_prune(experiment, "piece", base, scores))
  folder = artifacts.search_folder("grid")
  trained = stages.run_rewind(
      experiment, folder, tickets.concatenate(candidates)
  )
  names = dict.fromkeys(ticket.granularity for ticket in trained.tickets)
  levels = {
      name: trained.take(best_rows(trained, name))
      for name in sorted(names, key=("token", "piece", "token+piece").index)
  }
  return Found(tuned=tuned, tried={folder: trained}, levels=levels)


def _write_winners(experiment: Experiment, found: Found) -> None:
  """Copies each seed's final ticket to `rewind/`, as if trained there."""
  folder = experiment.workdir / artifacts.REWIND
  winners = found.winners
  config = {
      **experiment.stage_config,
      "tickets": [t.as_json() for t in winners.tickets],
      "prompt": artifacts.digest_arrays({"prompt": winners.prompt}),
  }
  if artifacts.finished_result(folder, config) is not None:
    return
  ticket = winners.tickets[0]
  source = next(n for n, t in found.tried.items() if ticket in t.tickets)
  rows = [found.tried[source].row_of(ticket) for ticket in winners.tickets]
  lines = artifacts.read_json_lines(
      experiment.workdir / source / artifacts.METRICS
  )
  artifacts.write_json_lines(
      folder / artifacts.METRICS,
      [
          {**line, "row": rows.index(line["row"])}
          for line in lines
          if line["row"] in rows
      ],
  )
  start = artifacts.load_arrays(experiment.workdir / source / artifacts.PROMPT)[
      "start"
  ]
  tickets.save_table(folder / artifacts.PROMPT, winners, start=start[rows])
  artifacts.write_json(
      folder / artifacts.RESULT,
      {
          "config": config,
          "rows": tickets.ticket_lines(winners),
          "trained_in": {"folder": source, "rows": rows},
      },
  )


def _write_tickets(experiment: Experiment, found: Found) -> None:
  lines = [
      {"folder": folder, "row": row, **line}
      for folder, table in {artifacts.TUNE: found.tuned, **found.tried}.items()
      for row, line in enumerate(tickets.ticket_lines(table))
  ]
  artifacts.write_json_lines(experiment.workdir / artifacts.TICKETS, lines)


def run_evaluate(experiment: Experiment, found: Found) -> list[dict[str, Any]]:
  """Each method's results: no prompt, prompt tuning, each granularity.

  The test split, where one is configured, is looked at here and nowhere else.

  Returns:
    For each method its rows, one for each task and seed (one for each task
    without a prompt).
  """
  folder = experiment.workdir / artifacts.EVALUATE
  # The winning tickets of the finest granularity are the method itself.
  names = [PROMPT_TUNING, *list(found.levels)[:-1], XPROMPT]
  tables = [found.tuned, *found.levels.values()]
  everything = tickets.concatenate(tables)
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": everything.prompt}),
      "methods": names,
      "test": experiment.split_fingerprints("test"),
      **_other_tasks(experiment),
  }
  other_tasks.check_unchanged(folder / artifacts.RESULT, config)
  result = artifacts.finished_result(folder, config)
  if result is not None:
    return result["methods"]
  started = time.monotonic()
  without = [_without_prompt(experiment, t) for t in experiment.data.tasks]
  methods = [{"method": NO_PROMPT, "rows": without}]
  lines = [
      {**line, **final}
      for line, final in zip(
          tickets.ticket_lines(everything),
          answers.final_lines(
              experiment,
              everything.prompt,
              everything.masks,
              everything.tasks,
          ),
          strict=True,
      )
  ]
  num_rows = len(found.tuned.tickets)
  for i, name in enumerate(names):
    rows = lines[i * num_rows : (i + 1) * num_rows]
    methods.append({"method": name, "rows": rows})
  artifacts.write_json(
      folder / artifacts.RESULT,
      {
          "config": config,
          "methods": methods,
          "seconds": round(time.monotonic() - started, 3),
      },
  )
  return methods


def _without_prompt(experiment: Experiment, task: str | None) -> dict[str, Any]:
  prompt, masks = prompts.zero_length_table(
      experiment.config.prompt.num_pieces, experiment.config.model.emb_dim
  )
  line: dict[str, Any] = {
      **({} if task is None else {"task": task}),
      "seed": None,
      "kept_tokens": 0,
      "kept_pieces": 0,
      "tunable_parameters": 0,
  }
  line["validation"] = experiment.evaluate("validation", prompt, masks, [task])[
      0
  ]
  return {**line, **answers.final_lines(experiment, prompt, masks, [task])[0]}


def _other_tasks(experiment: Experiment) -> dict[str, Any]:
  """Which tasks of EVAL_TASKS results depend on; nothing where there is none."""
  others = {name: s.fingerprint for name, s in experiment.others.items()}
  return {"other_tasks": others} if others else {}


def _seconds(experiment: Experiment) -> dict[str, float]:
  """Wall time of each stage that has run, by folder."""
  found = {}
  for path in sorted(experiment.workdir.glob(f"*/{artifacts.RESULT}")):
    result = artifacts.read_json(path)
    if "seconds" in result:
      found[path.parent.name] = result["seconds"]
  return found


def _members(experiment: Experiment) -> dict[str, Any]:
  """Examples of each split by task, where rows read different tasks."""
  seed = experiment.config.seeds[0]
  members = {
      task: experiment.data.num_examples(seed, task)
      for task in experiment.data.tasks
      if task is not None
  }
  return {"members": members} if members else {}


def run_experiment(experiment: Experiment) -> dict[str, Any]:
  """All stages, from tuning to the summary that `report` reads.

  Args:
    experiment: what is loaded.

  Returns:
    The summary in `WORKDIR/result.json`; docs/files.md describes it.

  Raises:
    UserError: WORKDIR belongs to another config, or a stage cannot go on.
  """
  search = dataclasses.asdict(experiment.config.search)
  config = {
      **experiment.stage_config,
      "search": search,
      "test": experiment.split_fingerprints("test"),
      **_other_tasks(experiment),
  }
  other_tasks.check_unchanged(experiment.workdir / artifacts.RESULT, config)
  summary = artifacts.finished_result(experiment.workdir, config)
  if summary is not None:
    return summary
  tuned = stages.run_tune(experiment)
  run = {"linear": _run_linear, "grid": _run_grid}[search["strategy"]]
  found = run(experiment, tuned)
  _write_winners(experiment, found)
  _write_tickets(experiment, found)
  summary = {
      "schema": SCHEMA,
      "config": config,
      "task": experiment.config.task.name,
      "num_examples": experiment.data.num_examples(experiment.config.seeds[0]),
      **_members(experiment),
      "prompt_length": experiment.config.prompt.length,
      "num_pieces": experiment.config.prompt.num_pieces,
      "methods": run_evaluate(experiment, found),
      "tickets_tried": sum(len(t.tickets) for t in found.tried.values()),
      "seconds": _seconds(experiment),
  }
  artifacts.write_json(experiment.workdir / artifacts.RESULT, summary)
  return summary
