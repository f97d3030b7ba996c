"""The task of an experiment: what gin files bind as `experiment.TaskConfig`."""

import dataclasses

from xprompt_jax import batches
from xprompt_jax.types import require, require_int

# Each is a split that a gin file names.
ROLES = ("train", "validation", "test")
# What `PROTOCOL = "heldout"` takes from validation; reported, never selected on.
HELDOUT = "heldout"
PROTOCOLS = ("paper", HELDOUT)
MIXTURE_ROWS = ("mixture", "task")
_SPLIT_FIELDS = tuple(f"{role}_split" for role in ROLES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """The task, its splits and its sizes.

  Attributes:
    name: seqio task or mixture (T5X's MIXTURE_OR_TASK_NAME).
    module: Python module that registers it (MIXTURE_OR_TASK_MODULE).
    mixture_rows: `mixture` trains one prompt for all members of a mixture,
      `task` one for each, all in one table.
    train_split: trained and scored on.
    validation_split: evaluated during training; selects checkpoint and ticket.
    test_split: evaluated once, at the end; None for none.
    protocol: `paper` selects and reports on validation; `heldout` selects on a
      fixed half of it and reports the other.
    inputs_length: T at most, EOS included; longer inputs are cut.
    targets_length: L at most, EOS included.
    buckets: lengths that inputs are padded to; empty means powers of two.
    max_examples: take this many from each split; None takes all.
    few_shot: train on this many examples of each task; None takes all.
    few_shot_seed: chooses them; None means each row's own seed.
    few_shot_balanced: choose as many of each label.
    vocabulary: SentencePiece file, or `bytes`.
    extra_ids: sentinel ids after the pieces.
  """

  name: str
  module: str
  mixture_rows: str = "mixture"
  train_split: str = "train"
  validation_split: str = "validation"
  test_split: str | None = None
  protocol: str = "paper"
  inputs_length: int = 512
  targets_length: int = 16
  buckets: tuple[int, ...] = ()
  max_examples: int | None = None
  few_shot: int | None = None
  few_shot_seed: int | None = None
  few_shot_balanced: bool = True
  vocabulary: str
  extra_ids: int = 100

  def __post_init__(self):
    require_int("TaskConfig.inputs_length", self.inputs_length, 2)
    require_int("TaskConfig.targets_length", self.targets_length, 2)
    for name in ("name", "module", "vocabulary", *_SPLIT_FIELDS):
      found = getattr(self, name)
      optional = name == "test_split"
      require(
          (isinstance(found, str) and bool(found))
          or (optional and found is None),
          f"TaskConfig.{name}",
          found,
          "a name, or None" if optional else "a name",
      )
    require_int("TaskConfig.extra_ids", self.extra_ids, 0)
    require(
        self.protocol in PROTOCOLS,
        "PROTOCOL",
        self.protocol,
        " or ".join(PROTOCOLS),
    )
    require(
        self.mixture_rows in MIXTURE_ROWS,
        "TaskConfig.mixture_rows",
        self.mixture_rows,
        " or ".join(MIXTURE_ROWS),
    )
    for name, least in (
        ("max_examples", 1),
        ("few_shot", 1),
        ("few_shot_seed", 0),
    ):
      if getattr(self, name) is not None:
        require_int(f"TaskConfig.{name}", getattr(self, name), least)
    require(
        isinstance(self.few_shot_balanced, bool),
        "TaskConfig.few_shot_balanced",
        self.few_shot_balanced,
        "True or False",
    )
    require(
        self.buckets is None
        or (
            isinstance(self.buckets, (list, tuple))
            and all(type(length) is int for length in self.buckets)
        ),
        "TaskConfig.buckets",
        self.buckets,
        "a list of lengths",
    )
    buckets = self.buckets or batches.default_buckets(self.inputs_length)
    batches.check_buckets(buckets, self.inputs_length)
    object.__setattr__(self, "buckets", tuple(buckets))
