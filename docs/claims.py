"""What the paper claims, as differences between methods of experiments.

`experiments.py` looks them up in result files. The experiments are those of
gin/experiments/.
"""

import dataclasses

# Points that a longer prompt may gain and the shorter one still suffice.
MARGIN = 1.0


@dataclasses.dataclass(frozen=True)
class Side:
  """A method of one run of an experiment; `run` is "" without RUNS."""

  method: str
  run: str = ""

  def __str__(self) -> str:
    names = [self.run, self.method]
    # A run named for its only method says nothing more.
    return " ".join(dict.fromkeys(name for name in names if name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A claim of the paper: each pair's first is better than its second.

  Attributes:
    title: what is claimed.
    experiment: its folder.
    pairs: what is compared, on each task; all must agree.
    split: where; None for the one that reports.
    margin: turned round: the first is better by less than that.
    without: a run whose own tasks are left out.
    note: what the comparison leaves open.
  """

  title: str
  experiment: str
  pairs: tuple[tuple[Side, Side], ...]
  split: str | None = None
  margin: float | None = None
  without: str | None = None
  note: str = ""


def _against(base: Side, *others: Side) -> tuple[tuple[Side, Side], ...]:
  return tuple((base, other) for other in others)


def _ticket(run: str = "") -> Side:
  return Side("xprompt", run)


_TUNED = Side("prompt_tuning")

CLAIMS = (
    *(
        Claim(
            title=f"Winning tickets exist: XPrompt beats {what}, on {where}",
            experiment=experiment,
            pairs=_against(_ticket(), base),
            split=split,
        )
        for experiment, split, where in (
            (
                "table1_paper",
                "validation",
                "the split that selects (the paper's protocol)",
            ),
            ("table1_methods", "heldout", "the held-out half"),
            ("table1_methods", "test", "test"),
        )
        for what, base in (
            # Tickets have trained twice as many steps.
            ("prompt tuning (the paper's comparison)", _TUNED),
            ("it trained again (as many steps)", Side("retrained")),
        )
    ),
    Claim(
        title="Reversed XPrompt is the worst",
        experiment="figure5_variants",
        pairs=tuple(
            (Side(name), Side("reversed"))
            for name in ("xprompt", "prompt_tuning", "random", "length")
        ),
    ),
    Claim(
        title="Both granularities beat one",
        experiment="table4_granularity",
        pairs=_against(_ticket(), Side("token"), Side("piece")),
    ),
    Claim(
        title="20 tokens suffice: 100 gain less than a margin",
        experiment="table5_length",
        pairs=_against(_ticket("length_100"), _ticket("length_20")),
        margin=MARGIN,
        note=(
            "All lengths take equally few steps at one learning rate: where 100"
            " tokens score less, they may only need more of them."
        ),
    ),
    Claim(
        title="Sampled vocabulary is the best initialisation",
        experiment="table6_initialisation",
        pairs=_against(
            _ticket("sampled_vocab"),
            _ticket("random_uniform"),
            _ticket("first_rows"),
        ),
        note="Of the ways that need no words of the task.",
    ),
    *(
        Claim(
            title=title,
            experiment="table7_transfer",
            pairs=_against(_ticket(run), _ticket(base)),
            without="source",
            note=(
                "Sources were trained before: TaskTransfer begins behind one"
                " training of another task, XPrompt Transfer behind two."
            ),
        )
        for title, run, base in (
            ("TaskTransfer helps", "task_transfer", "sampled_vocab"),
            ("XPrompt Transfer helps", "xprompt_transfer", "sampled_vocab"),
            (
                "XPrompt Transfer beats TaskTransfer",
                "xprompt_transfer",
                "task_transfer",
            ),
        )
    ),
    *(
        Claim(
            title=f"XPrompt gains with {shots} examples",
            experiment="table2_few_shot",
            pairs=_against(
                _ticket(f"shots_{shots}"),
                Side("prompt_tuning", f"shots_{shots}"),
            ),
            note=(
                "XPrompt has trained twice as many steps, and there is no"
                " `retrained` to compare with: the gain may be due to that."
            ),
        )
        for shots in (16, 32)
    ),
)
# Of the run with as many random tickets, on each split.
RANDOM = (
    (Side("xprompt_random"), _TUNED),
    (_ticket(), Side("xprompt_random")),
    (_ticket(), _TUNED),
)
