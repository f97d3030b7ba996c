"""Masked tokens of a tuned prompt: which, and that nothing is trained."""

import dataclasses

import numpy as np
import pytest

from tests.tiny_experiment import (
    CHECKSUM,
    CONFIG,
    EXACT_MATCH,
    files_of,
    make_experiment,
    result_of,
)
from xprompt_jax import masking, stages
from xprompt_jax import masks as masks_lib
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.tickets import Table, Ticket
from xprompt_jax.types import UserError

SEARCH = SearchConfig(masking_counts=(1, 3), masking_draws=2)
MASKING = dataclasses.replace(CONFIG, search=SEARCH)


def test_the_lowest_scores_are_masked_first_and_later_tokens_of_equal_ones():
  assert masking.token_order(np.array([0.4, 0.1, 0.9, 0.1])) == [3, 1, 0, 2]


def test_random_orders_are_a_function_of_seed_task_and_draw():
  orders = [masking.random_order(3, "a", draw, 5) for draw in range(3)]
  assert orders == [[4, 1, 3, 0, 2], [3, 4, 2, 0, 1], [3, 1, 4, 0, 2]]
  assert masking.random_order(8, "a", 0, 5) == [4, 0, 3, 2, 1]
  assert masking.random_order(3, "b", 0, 5) == [1, 3, 2, 4, 0]


def test_rows_of_the_figure():
  tuned = Table(
      tickets=(Ticket(seed=3), Ticket(seed=8, task="t")),
      prompt=np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4),
      masks=masks_lib.full_masks(2, 5, 2),
      validation=({"score": 1.0}, {"score": 2.0}),
  )
  scores = np.array([[5, 4, 3, 2, 1], [1, 2, 3, 4, 5]], np.float64)
  lines, table = masking.masked_rows(SEARCH, tuned, scores, ["a", "t"])
  assert lines[:3] == [
      {"seed": 3, "order": "importance", "draw": 0, "num_masked": 1},
      {"seed": 3, "order": "random", "draw": 0, "num_masked": 1},
      {"seed": 3, "order": "random", "draw": 1, "num_masked": 1},
  ]
  assert [line["num_masked"] for line in lines] == [1, 1, 1, 3, 3, 3] * 2
  assert lines[6]["task"] == "t"
  # Random orders of seed 3, task a: those above; of seed 8, task t: 4 2 1 and
  # 1 0 3 go first.
  assert table.masks.token_mask.tolist() == [
      [1, 1, 1, 1, 0],
      [1, 1, 1, 1, 0],
      [1, 1, 1, 0, 1],
      [1, 1, 0, 0, 0],
      [1, 0, 1, 0, 0],
      [1, 1, 0, 0, 0],
      [0, 1, 1, 1, 1],
      [1, 1, 1, 1, 0],
      [1, 0, 1, 1, 1],
      [0, 0, 0, 1, 1],
      [1, 0, 0, 1, 0],
      [0, 0, 1, 0, 1],
  ]
  assert (table.masks.piece_mask == table.masks.token_mask[..., None]).all()
  np.testing.assert_array_equal(table.prompt, tuned.prompt[[0] * 6 + [1] * 6])


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
  source, _ = finished
  experiment = make_experiment(
      tmp_path_factory.mktemp("masking"), MASKING, (EXACT_MATCH, CHECKSUM)
  )
  tuned = stages.run_tune(source)
  masking.run_masking(experiment, tuned)
  return experiment, tuned


def test_each_row_is_the_tuned_prompt_without_some_tokens(run):
  experiment, tuned = run
  result = result_of(experiment, "masking")
  assert len(result["rows"]) == 2 * 2 * 3
  assert result["seconds"] >= 0
  scores = stages.run_score(experiment, "token", tuned)["token_scores"]
  _, table = masking.masked_rows(SEARCH, tuned, scores, ["tiny"] * 2)
  for role in ("validation", "test"):
    for row in (0, 4, 11):
      one = table.take([row])
      alone = experiment.evaluate(role, one.prompt, one.masks)
      assert result["rows"][row][role] == alone[0]
  found = {row["test"]["checksum"] for row in result["rows"]}
  assert len(found) > 1


def test_run_again_it_touches_no_file_and_refuses_other_counts(run):
  experiment, tuned = run
  before = files_of(experiment.workdir)
  masking.run_masking(experiment, tuned)
  assert files_of(experiment.workdir) == before
  other = dataclasses.replace(SEARCH, masking_counts=(1, 2))
  config = dataclasses.replace(MASKING, search=other)
  with pytest.raises(UserError, match="belongs to another config: counts"):
    masking.run_masking(
        make_experiment(experiment.workdir, config, (EXACT_MATCH, CHECKSUM)),
        tuned,
    )


def test_without_counts_the_stage_is_left_out(run, tmp_path):
  _, tuned = run
  masking.run_masking(make_experiment(tmp_path), tuned)
  assert not files_of(tmp_path)
