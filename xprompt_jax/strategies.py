"""Which tickets are tried, in which order, and which of them wins.

`linear` is the paper's search: the best token ratio first, then the best piece
ratio given it. `levels` tries pieces alone beside it, `grid` all pairs. Every
table of a search trains at once, all seeds and importances included.
"""

from collections.abc import Mapping
import dataclasses
import statistics
from typing import Any

import numpy as np

from xprompt_jax import artifacts, pruning, stages, tickets
from xprompt_jax.experiment import Experiment
from xprompt_jax.tickets import Table, Ticket

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What a search leaves.

  Attributes:
    tuned: plain prompt tuning, a row for each task and seed.
    tried: by search folder, every ticket that was trained.
    levels: by granularity (`token`, `piece`, `token+piece`), the best ticket on
      validation of each importance, task and seed; ties go to the one tried
      first.
  """

  tuned: Table
  tried: Mapping[str, Table]
  levels: Mapping[str, Table]

  @property
  def finest(self) -> Table:
    """The best tickets at the finest granularity searched."""
    return list(self.levels.values())[-1]

  @property
  def winners(self) -> Table:
    """XPrompt: of these, those that gradients chose."""
    return self.finest.ranked_by(pruning.GRADIENT)

  def chosen_among(self, strategy: str) -> list[dict[str, Any]]:
    """What choosing gained on validation, for each of the finest tickets.

    Args:
      strategy: how they were searched for.

    Returns:
      `task` (where rows have one), `seed`, `importance`, how many `tickets`
      it was chosen among, its score (`chosen`) and their `mean`. Where tokens
      are chosen first, those tickets count too.
    """
    names = {self.finest.tickets[0].granularity}
    if strategy != "grid":
      names.add("token")
    lines = []
    for winner, validation in zip(
        self.finest.tickets, self.finest.validation, strict=True
    ):
      scores = [
          metrics["score"]
          for table in self.tried.values()
          for ticket, metrics in zip(
              table.tickets, table.validation, strict=True
          )
          if ticket.searched_for == winner.searched_for
          and ticket.granularity in names
      ]
      task = {} if winner.task is None else {"task": winner.task}
      line = {
          **task,
          "seed": winner.seed,
          "importance": winner.importance,
          "tickets": len(scores),
          "chosen": validation["score"],
          "mean": statistics.fmean(scores),
      }
      lines.append(line)
    return lines


def best_rows(table: Table, granularity: str) -> list[int]:
  """The best row of each search among the tickets of one granularity.

  Args:
    table: trained tickets.
    granularity: as `Ticket.granularity` names it.

  Returns:
    A row for each importance, task and seed, in the order they first stand in.
    Among equal validation scores the row that stands first wins.
  """
  best: dict[Ticket, int] = {}
  for row, ticket in enumerate(table.tickets):
    if ticket.granularity != granularity:
      continue
    score = table.validation[row]["score"]
    leader = best.get(ticket.searched_for)
    if leader is None or score > table.validation[leader]["score"]:
      best[ticket.searched_for] = row
  return list(best.values())


def _searched(experiment: Experiment, tuned: Table) -> Table:
  """The tuned prompts once for each importance, those of one together."""
  return tickets.concatenate(
      [
          dataclasses.replace(
              tuned.untrained,
              tickets=tuple(
                  dataclasses.replace(ticket, importance=importance)
                  for ticket in tuned.tickets
              ),
          )
          for importance in experiment.config.search.importances
      ]
  )


def _tuned_scores(
    experiment: Experiment, granularity: str, tuned: Table
) -> Scores:
  """Scores of the tuned prompts, row for row as `_searched` has them."""
  scores = stages.run_score(experiment, granularity, tuned)
  times = len(experiment.config.search.importances)
  return {name: np.concatenate([x] * times) for name, x in scores.items()}


def _behind(searched: Table, level: Table) -> Table:
  """The tuned prompts behind the masks of a level's best tickets."""
  return dataclasses.replace(level, prompt=searched.prompt, validation=())


def _run_linear(experiment: Experiment, tuned: Table) -> Found:
  searched, tried, levels = _searched(experiment, tuned), {}, {}
  base = searched
  for granularity in experiment.config.search.granularities:
    if base is searched:
      scores = _tuned_scores(experiment, granularity, tuned)
    else:
      scores = stages.run_score(experiment, granularity, base)
    candidates = stages.run_prune(experiment, granularity, base, scores)
    folder = artifacts.search_folder(granularity)
    tried[folder] = stages.run_rewind(experiment, folder, candidates)
    name = tried[folder].tickets[0].granularity
    levels[name] = tried[folder].take(best_rows(tried[folder], name))
    # The next granularity is scored at the tuned prompt behind these masks.
    base = _behind(searched, levels[name])
  return Found(tuned=tuned, tried=tried, levels=levels)


def _run_levels(experiment: Experiment, tuned: Table) -> Found:
  searched = _searched(experiment, tuned)
  # One pass scores both: no token is pruned yet.
  scores = _tuned_scores(experiment, "token", tuned)
  alone = [
      stages.run_prune(experiment, granularity, searched, scores, folder)
      for granularity, folder in (
          ("token", None),
          ("piece", artifacts.prune_folder("piece_alone")),
      )
  ]
  folder = artifacts.search_folder("levels")
  first = stages.run_rewind(experiment, folder, tickets.concatenate(alone))
  levels = {
      name: first.take(best_rows(first, name)) for name in ("token", "piece")
  }
  base = _behind(searched, levels["token"])
  scores = stages.run_score(experiment, "piece", base)
  candidates = stages.run_prune(experiment, "piece", base, scores)
  last = artifacts.search_folder("piece")
  second = stages.run_rewind(experiment, last, candidates)
  levels["token+piece"] = second.take(best_rows(second, "token+piece"))
  return Found(tuned=tuned, tried={folder: first, last: second}, levels=levels)


def _run_grid(experiment: Experiment, tuned: Table) -> Found:
  granularities = experiment.config.search.granularities
  searched = _searched(experiment, tuned)
  candidates: list[Table] = []
  if "token" in granularities:
    scores = _tuned_scores(experiment, "token", tuned)
    candidates.append(stages.run_prune(experiment, "token", searched, scores))
  if "piece" in granularities:
    base = tickets.concatenate([searched, *candidates])
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


_STRATEGIES = {"linear": _run_linear, "grid": _run_grid, "levels": _run_levels}


def run_strategy(experiment: Experiment, tuned: Table) -> Found:
  """Trains the tickets of the configured strategy and picks the best."""
  return _STRATEGIES[experiment.config.search.strategy](experiment, tuned)
