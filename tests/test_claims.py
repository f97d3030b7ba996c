"""What docs/experiments.py says of each claim: literal results in, words out."""

import json

import numpy as np
import pytest

from docs import experiments
from docs.claims import Claim, Side
from tests import report_files
from xprompt_jax import comparisons


def _comparison(low, high):
  return comparisons.Comparison(
      seeds=(0, 1),
      differences=(low, high),
      intervals={comparisons.STUDENT: (low, high)},
      tests=(None, None),
  )


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (0.1, 2.0, None, 1),
        (-2.0, -0.1, None, -1),
        (-0.1, 2.0, None, 0),
        (0.0, 2.0, None, 0),
        # Equal everywhere.
        (0.0, 0.0, None, 0),
        (-3.0, 0.9, 1.0, 1),
        (0.5, 1.5, 1.0, 0),
        (1.1, 3.0, 1.0, -1),
        (0.0, 0.0, 1.0, 1),
    ],
)
def test_what_an_interval_says_of_a_claim(low, high, margin, expected):
  assert experiments.speaks(_comparison(low, high), margin) == expected


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([1, 1, 1, 0], "holds"),
        ([1, 1, 1, 1], "holds"),
        ([1, 1, 0, 0], "not clear"),
        ([1, 1, 1, -1], "not clear"),
        ([0, 0, 0, 0], "not clear"),
        ([-1, -1, -1, 0], "does not hold"),
        ([-1, -1, 0, 0], "not clear"),
        ([-1, -1, -1, 1], "not clear"),
    ],
)
def test_when_a_claim_holds(votes, expected):
  assert experiments.verdict(votes) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [([1, 1], 1), ([1, 0], 0), ([0, 0], 0), ([1, -1], -1), ([0, -1], -1)],
)
def test_a_task_is_for_a_claim_if_all_its_comparisons_are(parts, expected):
  assert experiments.vote(parts) == expected


def _write(folder, *, is_sweep=True, **runs):
  """A finished sweep by `TASK__RUN`, or a suite by task."""
  names = {key: key.replace("__", "/") for key in runs}
  for key, methods in runs.items():
    report_files.write_run(
        folder / names[key],
        methods=methods,
        task=key.partition("__")[0],
    )
  result = {"schema": 1, "runs": list(names.values())}
  report_files.write_json(
      folder / "result.json", {**result, **({"by_run": {}} if is_sweep else {})}
  )


def test_runs_by_task_and_run(tmp_path):
  tuned = {"prompt_tuning": (1, 1)}
  _write(tmp_path / "sweep", a__x=tuned, b__x=tuned)
  _write(tmp_path / "suite", is_sweep=False, a=tuned)
  _write(tmp_path / "one_task", a=tuned)
  found = {
      name: [
          (*key, str(path.relative_to(tmp_path)))
          for key, path in experiments.runs_of(tmp_path / name).items()
      ]
      for name in ("sweep", "suite", "one_task", "no")
  }
  assert found == {
      "sweep": [("a", "x", "sweep/a/x"), ("b", "x", "sweep/b/x")],
      "suite": [("a", "", "suite/a")],
      "one_task": [("a", "a", "one_task/a")],
      "no": [],
  }


def test_a_run_that_was_deleted_is_not_run(tmp_path):
  tuned = {"prompt_tuning": (1, 1)}
  _write(tmp_path / "sweep", a__x=tuned, b__x=tuned)
  (tmp_path / "sweep/a/x/result.json").unlink()
  assert list(experiments.runs_of(tmp_path / "sweep")) == [("b", "x")]


CLAIM = Claim(
    title="Longer is better",
    experiment="lengths",
    pairs=((Side("xprompt", "long"), Side("xprompt", "short")),),
    without="source",
)


def test_the_section_of_a_claim(tmp_path):
  # Of 4 examples, two seeds.
  _write(
      tmp_path / "lengths",
      s__source={"xprompt": (0, 0)},
      a__short={"xprompt": (2, 2)},
      b__short={"xprompt": (1, 2)},
      s__short={"xprompt": (4, 4)},
      a__long={"xprompt": (3, 3)},
      b__long={"xprompt": (2, 2)},
      s__long={"xprompt": (0, 0)},
  )
  assert experiments.section(CLAIM, tmp_path) == (
      "not clear (for 0, against 0 of 2 tasks)",
      """
## Longer is better: not clear (for 0, against 0 of 2 tasks)

From `lengths`, on test.

| task | difference | points, 95 % interval | k/N | seeds better, worse | speaks |
| --- | --- | --- | --- | --- | --- |
| a | long xprompt minus short xprompt | +25.00 | 6/8 against 4/8 | 2, 0 of 2 | neither |
| b | long xprompt minus short xprompt | +12.50 [-146.33, +171.33] | 4/8 against 3/8 | 1, 0 of 2 | neither |

On the other splits, which do not vote:

| split | task | difference | points, 95 % interval | k/N | seeds better, worse |
| --- | --- | --- | --- | --- | --- |
| the split that selects | a | long xprompt minus short xprompt | +25.00 | 6/8 against 4/8 | 2, 0 of 2 |
| the split that selects | b | long xprompt minus short xprompt | +12.50 [-146.33, +171.33] | 4/8 against 3/8 | 1, 0 of 2 |
""",
  )


def test_what_was_not_run_is_said(tmp_path):
  said, text = experiments.section(CLAIM, tmp_path)
  assert said == "not run"
  assert text.endswith("`lengths` lacks what it needs.\n")
  # A run that failed in one of the two.
  _write(tmp_path / "lengths", a__long={"xprompt": (3, 3)})
  assert experiments.section(CLAIM, tmp_path)[0] == "not run"


def test_one_table_of_several_tasks_is_divided(tmp_path):
  """Each task has its own rows, and what they answered right."""
  row = report_files.row
  report_files.write_run(
      tmp_path / "table",
      methods={
          name: [row(s, n, task=t) for t in "ab" for s, n in enumerate(scores)]
          for name, scores in {
              "prompt_tuning": (2, 1),
              "xprompt": (4, 2),
          }.items()
      },
  )
  path = tmp_path / "table/result.json"
  summary = json.loads(path.read_text())
  summary["members"] = {"a": {"test": 4}, "b": {"test": 4}}
  report_files.write_json(path, summary)
  half, none = _right([1, 1, 0, 0], [1, 0, 0, 0]), np.zeros((2, 4), np.uint8)
  whole = _right([1, 1, 1, 1], [1, 1, 0, 0])
  report_files.write_arrays(
      tmp_path / "table/evaluate/correct.safetensors",
      **{
          "xprompt/test": np.concatenate([none, whole]),
          "prompt_tuning/test": np.concatenate([none, half]),
      },
  )
  runs = experiments.runs_of(tmp_path / "table")
  assert {task for task, _ in runs} == {"a", "b"}
  sides = Side("xprompt"), Side("prompt_tuning")
  found = {
      task: experiments.compare({(task, ""): path.parent}, task, *sides, None)[
          1
      ]
      for task in ("a", "b")
  }
  assert found["a"].differences == found["b"].differences == (50.0, 25.0)
  # Of task a what is known is not the share that its rows have.
  assert comparisons.BOTH not in found["a"].intervals
  assert comparisons.BOTH in found["b"].intervals


def test_examples_count_where_it_is_known_which_were_right(tmp_path):
  _write(
      tmp_path,
      is_sweep=False,
      a={"prompt_tuning": (2, 2), "xprompt": (3, 3)},
  )
  report_files.write_arrays(
      tmp_path / "a/evaluate/correct.safetensors",
      **{
          "xprompt/test": _right([1, 1, 1, 0], [1, 1, 1, 0]),
          "prompt_tuning/test": _right([1, 1, 0, 0], [1, 1, 0, 0]),
      },
  )
  split, found = experiments.compare(
      experiments.runs_of(tmp_path),
      "a",
      Side("xprompt"),
      Side("prompt_tuning"),
      None,
  )
  assert (split, found.mean) == ("test", 25.0)
  # One of four examples made the whole difference.
  assert found.interval == (0.0, 75.0)
  assert experiments.speaks(found, None) == 0


def _right(*rows):
  return np.array(rows, np.uint8)


def test_the_page_names_model_tasks_and_what_random_tickets_gain(tmp_path):
  _write(
      tmp_path / "table1_methods",
      is_sweep=False,
      a={"prompt_tuning": (1, 1), "xprompt": (3, 3), "xprompt_random": (2, 2)},
  )
  text = experiments.page(tmp_path)
  parameters = f"{report_files.MODEL_PARAMETERS:,}"
  assert f"frozen T5s of {parameters} parameters and the tasks a, 2 seeds" in (
      text
  )
  assert f"| `table1_methods` | {parameters} | 1 | 18 |" in text
  assert (
      "In `table1_methods` prompt tuning scores, of 100 on test: a 25.00."
      in (text)
  )
  assert "| Reversed XPrompt is the worst | not run |" in text
  assert (
      "| a | test | xprompt minus xprompt_random | +25.00 | 6/8 against 4/8 |"
      " 2, 0 of 2 |"
  ) in text
  assert "| a | the split that selects | xprompt_random minus" in text
  # No held-out half was written.
  assert "| a | the held-out half |" not in text


def test_how_much_there_is_to_gain(tmp_path):
  assert experiments.room(tmp_path) == ""
  # Of 4 examples, two seeds.
  _write(
      tmp_path / "table1_methods",
      is_sweep=False,
      a={"prompt_tuning": (4, 3), "xprompt": (4, 4)},
      b={"prompt_tuning": (3, 3)},
      c={"xprompt": (1, 1)},
  )
  assert experiments.room(tmp_path) == (
      "\nIn `table1_methods` prompt tuning scores, of 100 on test: a 87.50, b"
      " 75.00. There no method can gain more than 25.00 points on it.\n"
  )
