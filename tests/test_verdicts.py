"""What is said of XPrompt, in sentences."""

import numpy as np
import pytest

from xprompt_jax import verdicts

PREFIX = "XPrompt minus prompt tuning on "


def _rows(split, scores, sizes=None):
  return [
      {
          "seed": seed,
          split: {"accuracy": score, "score": score},
          **({"metric_sizes": {split: {"accuracy": sizes}}} if sizes else {}),
      }
      for seed, score in enumerate(scores)
  ]


def _summary(split="test", sizes=None, **scores):
  counts = {"train": 2000, "validation": 200, split: 200}
  return {
      "task": "mini_boolq",
      "num_examples": counts,
      "methods": [
          {"method": name, "rows": _rows(split, values, sizes)}
          for name, values in scores.items()
      ],
      "tickets_tried": 54,
  }


@pytest.mark.parametrize(
    ("tuned", "xprompt", "split", "line"),
    [
        (
            [80.0, 82.0, 81.0],
            [85.0, 86.0, 86.0],
            "test",
            "test accuracy: +4.67 ± 0.58 over 3 seeds, 95 % interval +3.23 to"
            " +6.10 (Student's over seeds; better in 3, worse in 0): XPrompt"
            " was better.",
        ),
        (
            [80.0, 82.0, 81.0],
            [78.0, 80.0, 78.0],
            "heldout",
            "held-out accuracy: -2.33 ± 0.58 over 3 seeds, 95 % interval -3.77"
            " to -0.90 (Student's over seeds; better in 0, worse in 3): XPrompt"
            " was worse.",
        ),
        (
            # Student's 95 % interval of three differences is 4.303 standard
            # errors wide to each side: 1.43 here, and -1.33 is within.
            [80.0, 82.0, 81.0],
            [79.0, 81.0, 79.0],
            "test",
            "test accuracy: -1.33 ± 0.58 over 3 seeds, 95 % interval -2.77 to"
            " +0.10 (Student's over seeds; better in 0, worse in 3): no clear"
            " difference.",
        ),
        (
            [80.0, 80.0, 80.0],
            [81.0, 80.0, 79.0],
            "test",
            "test accuracy: +0.00 ± 1.00 over 3 seeds, 95 % interval -2.48 to"
            " +2.48 (Student's over seeds; better in 1, worse in 1): no clear"
            " difference.",
        ),
        (
            [80.0] * 5,
            [80.0] * 5,
            "test",
            "test accuracy: +0.00 ± 0.00 over 5 seeds, 95 % interval +0.00 to"
            " +0.00 (seeds resampled; better in 0, worse in 0): no difference.",
        ),
        (
            [80.0],
            [80.5],
            "test",
            "test accuracy: +0.50: XPrompt was better with this seed.",
        ),
        (
            [80.0],
            [80.0],
            "test",
            "test accuracy: +0.00: no difference with this seed.",
        ),
        (
            [80.0],
            [79.999],
            "test",
            "test accuracy: +0.00: XPrompt was worse with this seed.",
        ),
        (
            [80.0, 82.0],
            [82.0, 84.0],
            "validation",
            "validation accuracy: +2.00 ± 0.00 over 2 seeds, 95 % interval"
            " +2.00 to +2.00 (Student's over seeds; better in 2, worse in 0):"
            " XPrompt was better; validation also chose among 54 tickets, which"
            " favours XPrompt.",
        ),
    ],
)
def test_comparison(tuned, xprompt, split, line):
  summary = _summary(split, prompt_tuning=tuned, xprompt=xprompt)
  assert verdicts.comparison(summary) == PREFIX + line


def test_seeds_are_paired_by_name():
  summary = _summary(prompt_tuning=[10.0, 50.0, 90.0], xprompt=[11, 51, 91])
  summary["methods"][1]["rows"].reverse()
  assert "+1.00 ± 0.00" in verdicts.comparison(summary)


def test_seeds_that_one_method_lacks_are_named():
  summary = _summary(prompt_tuning=[10.0, 50.0], xprompt=[11.0, 51.0, 99.0])
  assert verdicts.comparison(summary) == (
      PREFIX + "test accuracy: +1.00 ± 0.00 over 2 seeds, 95 % interval +1.00"
      " to +1.00 (Student's over seeds; better in 2, worse in 0; 1 row has no"
      " partner): XPrompt was better."
  )
  assert verdicts.comparison(_summary(prompt_tuning=[1.0])) is None
  assert verdicts.comparison(_summary(prompt_tuning=[], xprompt=[1.0])) is None


def test_one_seed_has_mcnemars_test():
  """104 examples: 74 right against 70, 6 and 2 of them alone."""
  second = np.array([1] * 70 + [0] * 34, np.uint8)
  first = np.array([0] * 2 + [1] * 68 + [1] * 6 + [0] * 28, np.uint8)
  summary = _summary(
      sizes=104,
      prompt_tuning=[100 * 70 / 104],
      xprompt=[100 * 74 / 104],
  )
  arrays = {"prompt_tuning/test": second[None], "xprompt/test": first[None]}
  line = verdicts.comparison(summary, verdicts.rights_of(summary, arrays))
  assert line == (
      PREFIX + "test accuracy: +3.85, 95 % interval -0.96 to +9.62 (examples"
      " resampled; 74/104 against 70/104; right alone 6 against 2, McNemar's p"
      " = 0.29): no clear difference with this seed."
  )


def test_what_selecting_alone_gains():
  scores = {
      "prompt_tuning": [80.0, 81.0, 82.0],
      "xprompt": [84.0, 85.0, 87.0],
      "xprompt_random": [84.0, 84.0, 87.0],
  }
  assert verdicts.lines(_summary(**scores)) == [
      PREFIX + "test accuracy: +4.33 ± 0.58 over 3 seeds, 95 % interval +2.90"
      " to +5.77 (Student's over seeds; better in 3, worse in 0): XPrompt was"
      " better.",
      "What selecting alone gains: random tickets minus prompt tuning on test"
      " accuracy: +4.00 ± 1.00 over 3 seeds, 95 % interval +1.52 to +6.48"
      " (Student's over seeds; better in 3, worse in 0): random tickets were"
      " better.",
      "XPrompt minus random tickets on test accuracy: +0.33 ± 0.58 over 3"
      " seeds, 95 % interval -1.10 to +1.77 (Student's over seeds; better in 1,"
      " worse in 0): no clear difference.",
  ]
  summary = _summary("validation", **scores)
  # Half of the 54 had random scores.
  summary["config"] = {"search": {"importances": ["gradient", "random"]}}
  on_validation = verdicts.lines(summary)
  assert [line.rpartition(";")[2] for line in on_validation] == [
      " validation also chose among 27 tickets, which favours XPrompt.",
      " validation also chose among 27 tickets, which favours random tickets.",
      " validation chose both.",
  ]


def test_rows_of_tasks_find_what_they_answered():
  summary = _summary(xprompt=[50.0, 50.0], prompt_tuning=[0.0, 0.0])
  for row, task in zip(summary["methods"][0]["rows"], "ab", strict=True):
    row["task"] = task
  ours = {
      "xprompt/test/0": np.array([1, 0], np.uint8),
      "xprompt/test/1": np.array([0, 1, 0, 1], np.uint8),
  }
  rights = verdicts.rights_of(summary, ours)
  assert {key: right.tolist() for key, right in rights.items()} == {
      ("xprompt", "test", "a", 0): [1, 0],
      ("xprompt", "test", "b", 1): [0, 1, 0, 1],
  }


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        (
            {"test": 400},
            " Test (400 examples) was looked at once, at the end.",
        ),
        (
            {"heldout": 99},
            " The other half (99 examples) was looked at once, at the end.",
        ),
        (
            {"heldout": 99, "test": 400},
            " The other half (99 examples) and test (400 examples) were looked"
            " at once, at the end.",
        ),
    ],
)
def test_selection(counts, text):
  summary = _summary(prompt_tuning=[1.0], xprompt=[1.0])
  summary["num_examples"] = {"train": 20, "validation": 100, **counts}
  half = ", half of the split" if "heldout" in counts else ""
  assert verdicts.selection(summary) == (
      "Trained and scored on 20 examples; of each seed the checkpoint and the"
      f" ticket with the best score on validation (100 examples{half}) were"
      f" taken.{text}"
  )
  del summary["methods"][1]
  assert "the checkpoint with the best score" in verdicts.selection(summary)
  assert ") was taken." in verdicts.selection(summary)
