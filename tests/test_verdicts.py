"""What is said of XPrompt, in sentences."""

import numpy as np
import pytest

from xprompt_jax import verdicts

# The paper's search.
SEARCH = {
    "strategy": "linear",
    "granularities": ["token", "piece"],
    "token_ratios": [0.2] * 9,
    "piece_ratios": [0.2] * 9,
}
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
      "config": {"search": SEARCH},
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
            "test accuracy: +0.00 ± 0.00 over 5 seeds, the same in all seeds, no"
            " interval (better in 0, worse in 0): no difference.",
        ),
        (
            [80.0],
            [80.5],
            "test",
            "test accuracy: +0.50: no clear difference with this seed.",
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
            "test accuracy: +0.00: no clear difference with this seed.",
        ),
        (
            [80.0, 82.0],
            [82.0, 84.0],
            "validation",
            "validation accuracy: +2.00 ± 0.00 over 2 seeds, the same in all"
            " seeds, no interval (better in 2, worse in 0): no clear difference;"
            " validation also chose among 18 tickets of each seed, which favours"
            " XPrompt.",
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
      PREFIX
      + "test accuracy: +1.00 ± 0.00 over 2 seeds, the same in all seeds,"
      " no interval (better in 2, worse in 0; 1 row has no partner): no clear"
      " difference."
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


def test_what_the_same_search_over_random_tickets_gains():
  scores = {
      "prompt_tuning": [80.0, 81.0, 82.0],
      "xprompt": [84.0, 85.0, 87.0],
      "xprompt_random": [84.0, 84.0, 87.0],
  }
  assert verdicts.lines(_summary(**scores)) == [
      PREFIX + "test accuracy: +4.33 ± 0.58 over 3 seeds, 95 % interval +2.90"
      " to +5.77 (Student's over seeds; better in 3, worse in 0): XPrompt was"
      " better.",
      "What the same search over random tickets gains: random tickets minus"
      " prompt tuning on test accuracy: +4.00 ± 1.00 over 3 seeds, 95 % interval +1.52 to +6.48"
      " (Student's over seeds; better in 3, worse in 0): random tickets were"
      " better.",
      "XPrompt minus random tickets on test accuracy: +0.33 ± 0.58 over 3"
      " seeds, 95 % interval -1.10 to +1.77 (Student's over seeds; better in 1,"
      " worse in 0): no clear difference.",
  ]
  summary = _summary("validation", **scores)
  on_validation = verdicts.lines(summary)
  assert [line.rpartition(";")[2] for line in on_validation] == [
      " validation also chose among 18 tickets of each seed, which favours"
      " XPrompt.",
      " validation also chose among 18 tickets of each seed, which favours random"
      " tickets.",
      " validation chose both.",
  ]


def test_it_is_said_on_validation_too_and_what_choosing_gains():
  summary = _summary(prompt_tuning=[80.0, 81.0], xprompt_random=[80.0, 82.0])
  for method, scores in zip(
      summary["methods"], ([70.0, 70.0], [74.0, 76.0]), strict=True
  ):
    for row, score in zip(method["rows"], scores, strict=True):
      row["validation"] = {"accuracy": score, "score": score}
  gain = {"importance": "random", "tickets": 18}
  summary["selection"] = [
      {
          "seed": 0,
          "importance": "gradient",
          "tickets": 18,
          "chosen": 1,
          "mean": 0,
      },
      {"seed": 0, **gain, "chosen": 74.0, "mean": 70.0},
      {"seed": 1, **gain, "chosen": 76.0, "mean": 71.0},
  ]
  test, validation, choosing = verdicts.lines(summary)
  assert "prompt tuning on test accuracy: +0.50 ± 0.71" in test
  assert validation == (
      "What the same search over random tickets gains: random tickets minus"
      " prompt tuning on validation accuracy: +5.00 ± 1.41 over 2 seeds, 95 %"
      " interval -7.71 to +17.71 (Student's over seeds; better in 2, worse in"
      " 0): no clear difference; validation also chose among 18 tickets of each"
      " seed, which favours random tickets."
  )
  assert choosing == (
      "What choosing gains: the random ticket that validation chose minus the"
      " mean of the 18 it was chosen among, on validation score: +4.50 ± 0.71"
      " over 2 seeds."
  )


def test_xprompt_stands_beside_as_much_training_with_nothing_pruned():
  scores = {
      "prompt_tuning": [80.0, 81.0, 82.0],
      "xprompt": [84.0, 85.0, 87.0],
      "retrained": [84.0, 86.0, 86.0],
  }
  assert verdicts.lines(_summary(**scores))[1] == (
      "XPrompt minus retrained, nothing pruned on test accuracy: +0.00 ± 1.00"
      " over 3 seeds, 95 % interval -2.48 to +2.48 (Student's over seeds; better"
      " in 1, worse in 1): no clear difference."
  )
  assert verdicts.lines(_summary("validation", **scores))[1].endswith(
      "; validation also chose among 18 tickets of each seed, which favours"
      " XPrompt."
  )


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 18),
        # Of a seed, a task and a kind of score.
        ({"importances": ["gradient", "random"]}, 18),
        ({"granularities": ["token"]}, 9),
        # Pieces alone are tried besides.
        ({"strategy": "levels"}, 18),
        ({"strategy": "grid"}, 81),
    ],
)
def test_tickets_that_could_win(fields, count):
  summary = {"config": {"search": {**SEARCH, **fields}}}
  assert verdicts.num_tickets(summary) == count


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
            " Nothing was chosen on test (400 examples).",
        ),
        (
            {"heldout": 99},
            " Nothing was chosen on the other half (99 examples).",
        ),
        (
            {"heldout": 99, "test": 400},
            " Nothing was chosen on the other half (99 examples) and test (400"
            " examples).",
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
