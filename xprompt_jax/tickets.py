"""Tickets, and tables of them: prompts and masks with where they come from.

`stages.py` makes them and `search.py` chooses among them.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts, pruning
from xprompt_jax import masks as masks_lib
from xprompt_jax.types import PromptMasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
  """Where a row's masks come from.

  Attributes:
    seed: of the tuned prompt, and of the data order when it is retrained.
    task: what it is trained on, in a table whose rows read different tasks.
    token_ratio: compression ratio of its tokens; None if they were not pruned.
    piece_ratio: the same of its pieces.
    importance: what its units were ranked by, of `pruning.IMPORTANCES`.
    control: what it is a control of XPrompt's ticket by, of
      `pruning.CONTROLS`; its ratios are those of that ticket.
  """

  seed: int
  token_ratio: float | None = None
  piece_ratio: float | None = None
  task: str | None = None
  importance: str = pruning.GRADIENT
  control: str | None = None

  def as_json(self) -> dict[str, Any]:
    """Its fields as result files have them.

    `task`, `importance` and `control` only where they are not the default.
    """
    fields = dataclasses.asdict(self)
    task = fields.pop("task")
    if self.importance == pruning.GRADIENT:
      del fields["importance"]
    if self.control is None:
      del fields["control"]
    return fields if task is None else {"task": task, **fields}

  @property
  def unpruned(self) -> "Ticket":
    """The ticket of the tuned prompt behind this one."""
    return Ticket(seed=self.seed, task=self.task)

  @property
  def searched_for(self) -> "Ticket":
    """The same for all tickets of which one wins."""
    return dataclasses.replace(self, token_ratio=None, piece_ratio=None)

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

  @property
  def seeds(self) -> list[int]:
    """The seed of each row."""
    return [ticket.seed for ticket in self.tickets]

  @property
  def tasks(self) -> list[str | None]:
    """The task of each row; None where all read one split."""
    return [ticket.task for ticket in self.tickets]

  def row_of(self, ticket: Ticket) -> int:
    """Where a ticket stands."""
    return self.tickets.index(ticket)

  def ranked_by(self, importance: str) -> "Table":
    """The rows of one importance, in their order."""
    return self.take(
        [r for r, t in enumerate(self.tickets) if t.importance == importance]
    )

  @property
  def untrained(self) -> "Table":
    """The same rows without results."""
    return dataclasses.replace(self, validation=())


def concatenate(tables: Sequence[Table]) -> Table:
  """The rows of several tables, one after another."""
  return Table(
      tickets=tuple(t for table in tables for t in table.tickets),
      prompt=np.concatenate([table.prompt for table in tables]),
      masks=masks_lib.concatenate([table.masks for table in tables]),
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
            **table.tickets[row].as_json(),
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
          **masks_lib.as_arrays(table.masks),
          **more,
      },
  )
