"""Which metrics are shares, and of how many."""

import dataclasses

import pytest

from tests import examples
from xprompt_jax import counts


def _described(*names):
  return [{"function": name, "kwargs": {}} for name in names]


OWN = "xprompt_jax.tasks.metrics"
GROUPED = [{"group": g, "value": 0} for g in (0, 0, 1, 1, 2)]


@pytest.mark.parametrize(
    ("targets", "metrics", "sizes"),
    [
        ([0, 1, 1], _described(f"{OWN}:accuracy"), {"accuracy": 3}),
        (
            [0, 1, 1],
            _described("t5.evaluation.metrics:accuracy"),
            {"accuracy": 3},
        ),
        (GROUPED, _described(f"{OWN}:f1a", f"{OWN}:grouped_em"), {"em": 3}),
        ([["a"], ["b"]], _described(f"{OWN}:squad"), {"em": 2}),
        (
            GROUPED,
            _described(f"{OWN}:gender_parity", f"{OWN}:grouped_accuracy"),
            {"accuracy": 5, "gender_parity": 2},
        ),
        ([0, 1], _described(f"{OWN}:mean_3class_f1"), {}),
        # A user's own may be in 0 to 1; nobody knows.
        ([0, 1], _described("my_tasks:accuracy"), {}),
        ([0, 1], [{"task": "mine", "module": "my_tasks", "metric": 0}], {}),
    ],
)
def test_only_known_percentages_are_shares(targets, metrics, sizes):
  assert counts.metric_sizes(targets, metrics) == sizes


def _accuracy(targets, predictions):
  """As sklearn has it: from 0 to 1."""
  del targets, predictions
  return {"accuracy": 0.75}


def test_an_accuracy_from_0_to_1_is_not_counted_as_percent():
  split = examples.tiny_split(4)
  assert counts.of_metrics({"accuracy": 75.0}, split.metric_sizes()) == {
      "accuracy": "3/4"
  }
  own = dataclasses.replace(
      split, info={**split.info, "metrics": _described(f"{__name__}:_accuracy")}
  )
  metrics = own.compute_metrics([""] * 4)
  assert metrics == {"accuracy": 0.75}
  assert counts.of_metrics(metrics, own.metric_sizes()) == {}
