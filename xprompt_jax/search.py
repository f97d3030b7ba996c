"""A whole run: tuning, the search, what is compared with it, and the summary.

`strategies.py` says which tickets are tried, `controls.py` what the winners are
compared with, `masking.py` and `auto_ratio.py` what is measured beside them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any

from xprompt_jax import (
    answers,
    artifacts,
    auto_ratio,
    controls,
    correctness,
    masking,
    other_tasks,
    prompts,
    pruning,
    stages,
    strategies,
    tickets,
)
from xprompt_jax.experiment import Experiment
from xprompt_jax.strategies import Found
from xprompt_jax.tickets import Table

# Raised when a reader of older summaries would read newer ones wrongly.
SCHEMA = 1
NO_PROMPT = "no_prompt"
PROMPT_TUNING = "prompt_tuning"
XPROMPT = "xprompt"


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


def methods_of(
    experiment: Experiment,
    found: Found,
    others: Mapping[str, Table],
) -> dict[str, Table]:
  """The final rows of every method, by its name, in the order of reports.

  Args:
    experiment: what is loaded.
    found: what the search left.
    others: controls, and whatever else was trained beside the search.
  """
  levels = [
      table.ranked_by(pruning.GRADIENT) for table in found.levels.values()
  ]
  # The winning tickets of the finest granularity are the method itself.
  names = [*list(found.levels)[:-1], XPROMPT]
  _, *importances = experiment.config.search.importances
  return {
      PROMPT_TUNING: found.tuned,
      **dict(zip(names, levels, strict=True)),
      **{
          f"{XPROMPT}_{name}": found.finest.ranked_by(name)
          for name in importances
      },
      **{name: table for name, table in others.items() if table.tickets},
  }


def run_evaluate(
    experiment: Experiment, tables: Mapping[str, Table]
) -> list[dict[str, Any]]:
  """Each method's results, beside those of no prompt.

  Nothing is chosen on splits that only report (the held-out half, test).
  `correct.safetensors` says which examples each row gets right.

  Args:
    experiment: what is loaded.
    tables: by method, from `methods_of`.

  Returns:
    For each method its rows, one for each task and seed (one for each task
    without a prompt).
  """
  folder = experiment.workdir / artifacts.EVALUATE
  everything = tickets.concatenate(list(tables.values()))
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": everything.prompt}),
      "methods": list(tables),
      "test": experiment.split_fingerprints("heldout", "test"),
      **others_of(experiment),
  }
  other_tasks.check_unchanged(folder / artifacts.RESULT, config)
  result = artifacts.finished_result(folder, config)
  if result is not None:
    return result["methods"]
  started = time.monotonic()
  without = answers.join(
      [without_prompt(experiment, task) for task in experiment.data.tasks]
  )
  methods = [{"method": NO_PROMPT, "rows": without.lines}]
  right = {NO_PROMPT: without.right}
  finals = answers.finals(
      experiment, everything.prompt, everything.masks, everything.tasks
  )
  lines = [
      {**line, **final}
      for line, final in zip(
          tickets.ticket_lines(everything), finals.lines, strict=True
      )
  ]
  stop = 0
  for name, table in tables.items():
    start, stop = stop, stop + len(table.tickets)
    methods.append({"method": name, "rows": lines[start:stop]})
    right[name] = finals.rows(start, stop).right
  write_evaluation(folder, config, methods, right, started)
  return methods


def write_evaluation(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    methods: Sequence[Mapping[str, Any]],
    right: Mapping[str, correctness.Right],
    started: float,
) -> None:
  """Writes what the stage `evaluate` leaves, its result last.

  Args:
    folder: of the stage.
    config: what it depends on.
    methods: each with its rows.
    right: which examples each row gets right, by method.
    started: by the clock of `time.monotonic`.
  """
  correctness.save(folder / correctness.CORRECT, right)
  artifacts.write_json(
      folder / artifacts.RESULT,
      {
          "config": config,
          "methods": methods,
          "seconds": round(time.monotonic() - started, 3),
      },
  )


def without_prompt(experiment: Experiment, task: str | None) -> answers.Finals:
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
  finals = answers.finals(experiment, prompt, masks, [task])
  return dataclasses.replace(finals, lines=[{**line, **finals.lines[0]}])


def others_of(experiment: Experiment) -> dict[str, Any]:
  """Which tasks of EVAL_TASKS results depend on; nothing where there is none."""
  others = {name: s.fingerprint for name, s in experiment.others.items()}
  return {"other_tasks": others} if others else {}


def seconds_of(experiment: Experiment) -> dict[str, float]:
  """Wall time of each stage that has run, by folder."""
  found = {}
  for path in sorted(experiment.workdir.glob(f"*/{artifacts.RESULT}")):
    result = artifacts.read_json(path)
    if "seconds" in result:
      found[path.parent.name] = result["seconds"]
  return found


def members_of(experiment: Experiment) -> dict[str, Any]:
  """Examples of each split by task, where rows read different tasks."""
  seed = experiment.config.seeds[0]
  members = {
      task: experiment.data.num_examples(seed, task)
      for task in experiment.data.tasks
      if task is not None
  }
  return {"members": members} if members else {}


def source_of(experiment: Experiment) -> dict[str, Any]:
  """PROMPT_INIT_FILE for readers; a digest stands for it in the config."""
  prompt = experiment.config.prompt
  return {"init_file": prompt.init_file} if prompt.init == "from_file" else {}


def run_experiment(experiment: Experiment) -> dict[str, Any]:
  """All stages, from tuning to the summary that `report` reads.

  Args:
    experiment: what is loaded.

  Returns:
    The summary in `WORKDIR/result.json`; docs/files.md describes it.

  Raises:
    UserError: WORKDIR belongs to another config, or a stage cannot go on.
  """
  config = {
      **experiment.stage_config,
      "search": experiment.config.search.as_json(),
      "test": experiment.split_fingerprints("heldout", "test"),
      **others_of(experiment),
  }
  other_tasks.check_unchanged(experiment.workdir / artifacts.RESULT, config)
  summary = artifacts.finished_result(experiment.workdir, config)
  if summary is not None:
    return summary
  tuned = stages.run_tune(experiment)
  found = strategies.run_strategy(experiment, tuned)
  _write_winners(experiment, found)
  _write_tickets(experiment, found)
  compared, left_out = controls.run_controls(experiment, tuned, found.winners)
  compared |= auto_ratio.run_auto_ratio(experiment, tuned)
  masking.run_masking(experiment, tuned)
  summary = {
      "schema": SCHEMA,
      "config": config,
      "task": experiment.config.task.name,
      "num_examples": experiment.data.num_examples(experiment.config.seeds[0]),
      **members_of(experiment),
      **source_of(experiment),
      "prompt_length": experiment.config.prompt.length,
      "num_pieces": experiment.config.prompt.num_pieces,
      "methods": run_evaluate(
          experiment, methods_of(experiment, found, compared)
      ),
      **({"left_out": left_out} if left_out else {}),
      "selection": found.chosen_among(experiment.config.search.strategy),
      "tickets_tried": sum(len(t.tickets) for t in found.tried.values()),
      "seconds": seconds_of(experiment),
  }
  artifacts.write_json(experiment.workdir / artifacts.RESULT, summary)
  return summary
