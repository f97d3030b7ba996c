"""What a task may measure: numbers, of targets and predictions alone."""

import dataclasses
import types

import numpy as np
import pytest

from tests import examples, shared_data
from xprompt_jax import token_cache, vocabularies
from xprompt_jax.types import UserError


def with_info(split, **changes):
  return dataclasses.replace(split, info={**split.info, **changes})


def measured_by(name):
  """Three examples and a metric of this module."""
  metric = {"function": f"tests.test_task_metrics:{name}", "kwargs": {}}
  split = examples.make_split([[5, 1]] * 3, [[6, 1]] * 3)
  return with_info(split, metrics=[metric])


def scalar(targets, predictions):
  # seqio's Scalar, on a machine that does not have seqio.
  return {"share": types.SimpleNamespace(value=np.float32(0.25))}


def undefined(targets, predictions):
  return {"pearson": np.float64("nan")}


def text(targets, predictions):
  return {"sample": "True"}


def nothing(targets, predictions):
  return {}


def by_score(targets, scores):
  return {"likelihood": sum(scores)}


def by_guess(targets, guesses):
  return {"hits": sum(guesses)}


def test_a_number_may_come_in_seqios_scalar():
  assert measured_by("scalar").compute_metrics([""] * 3) == {"share": 0.25}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "undefined",
            "metric pearson: found .*nan.*, expected a finite number",
        ),
        ("text", "metric sample: found 'True', expected a finite number"),
        ("nothing", "metrics: found {}, expected one or more"),
    ],
)
def test_whatever_is_no_finite_number_is_refused(metric, message):
  with pytest.raises(UserError, match=f"task tiny.*{message}"):
    measured_by(metric).compute_metrics([""] * 3)


def test_the_fingerprint_covers_what_is_measured():
  split = measured_by("scalar")
  assert split.fingerprint == measured_by("scalar").fingerprint
  postprocessor = {"function": "tests.test_task_metrics:text", "kwargs": {}}
  others = {
      measured_by("text").fingerprint,
      with_info(split, postprocessor=postprocessor).fingerprint,
      with_info(split, examples_sha256="0").fingerprint,
  }
  assert len(others | {split.fingerprint}) == 4


@pytest.mark.parametrize(
    ("name", "metric_fns", "message"),
    [
        (
            "unmeasured",
            [],
            "task unmeasured: has no metric, expected at least one metric"
            " function of targets and predictions",
        ),
        (
            "scores",
            [scalar, by_score],
            "task scores: metric by_score takes scores or auxiliary values",
        ),
        ("guesses", [by_guess], r"guesses: .*\('targets', 'guesses'\)"),
    ],
)
def test_the_cache_is_not_made_for_a_task_that_cannot_be_measured(
    tmp_path, name, metric_fns, message
):
  seqio = shared_data.quiet_import("seqio")
  sources = shared_data.quiet_import("xprompt_jax.tasks.sources")
  path = vocabularies.load_vocabulary("bundled", 32).path
  vocabulary = seqio.SentencePieceVocabulary(path, 32)
  seqio.TaskRegistry.add(
      name,
      source=sources.RowSource(
          lambda split: [{"inputs": "red", "targets": "True"}],
          splits=["train"],
      ),
      preprocessors=[seqio.preprocessors.tokenize],
      output_features={
          k: seqio.Feature(vocabulary) for k in ("inputs", "targets")
      },
      metric_fns=metric_fns,
  )
  try:
    with pytest.raises(UserError, match=message) as error:
      token_cache.ensure_token_cache(
          task=name,
          split="train",
          module="tests.test_task_metrics",
          cache_dir=tmp_path,
          inputs_length=7,
          targets_length=4,
      )
  finally:
    seqio.TaskRegistry.remove(name)
  assert "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())
