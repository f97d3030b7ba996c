"""Controls of the final tickets: literal masks, and one table for all."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.tiny_experiment import (
    CONFIG,
    arrays_of,
    files_of,
    make_experiment,
    result_of,
)
from xprompt_jax import controls, pruning, stages, strategies, tickets
from xprompt_jax import masks as masks_lib
from xprompt_jax.types import PromptMasks, UserError

# P 3, K 2: two tokens and three pieces are kept.
TICKET = PromptMasks(
    token_mask=np.array([1, 1, 0], np.float32),
    piece_mask=np.array([[1, 1], [1, 0], [0, 0]], np.float32),
)


def test_reversed_is_the_exact_complement():
  masks = controls.reversed_masks(TICKET)
  assert masks.piece_mask.tolist() == [[0, 0], [0, 1], [1, 1]]
  # The first token ends with no piece.
  assert masks.token_mask.tolist() == [0, 1, 1]


def test_reversed_again_is_the_ticket():
  masks = controls.reversed_masks(controls.reversed_masks(TICKET))
  assert masks.piece_mask.tolist() == TICKET.piece_mask.tolist()


@pytest.mark.parametrize(
    ("seed", "pieces"),
    [(3, [[0, 1], [0, 0], [1, 1]]), (4, [[0, 0], [1, 0], [1, 1]])],
)
def test_random_units_are_those_a_seed_and_a_task_draw(seed, pieces):
  masks = controls.random_masks(TICKET, seed, "a")
  assert masks.piece_mask.tolist() == pieces
  assert masks.token_mask.tolist() == [float(any(row)) for row in pieces]
  other = controls.random_masks(TICKET, 3, "b")
  assert other.piece_mask.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_magnitude_keeps_the_largest_values_of_the_whole_prompt():
  # Tokens 1.5, 2.25, 2.5; pieces 2 1, 0.5 4, 4 1.
  prompt = np.array([[1, -3, 2, 0], [0.5, 0.5, -8, 0], [4, 4, 0, 2]])
  masks = controls.magnitude_masks(TICKET, prompt.astype(np.float32))
  assert masks.token_mask.tolist() == [0, 1, 1]
  assert masks.piece_mask.tolist() == [[0, 0], [0, 1], [1, 1]]


def test_a_length_prompt_stands_at_the_end_and_has_all_pieces():
  masks = controls.length_masks(TICKET)
  assert masks.token_mask.tolist() == [0, 1, 1]
  assert masks.piece_mask.tolist() == [[0, 0], [1, 1], [1, 1]]
  assert masks.present.tolist() == [0, 1, 1]


@pytest.mark.parametrize("token_ratio", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("piece_ratio", [0.0, 0.3, 0.7, 0.9])
def test_random_and_magnitude_have_the_counts_of_the_ticket(
    token_ratio, piece_ratio
):
  rng = np.random.default_rng(0)
  full = jax.tree.map(lambda x: np.asarray(x)[0], masks_lib.full_masks(1, 8, 6))
  ticket = pruning.prune_tokens(rng.random(8), full, token_ratio)
  ticket = pruning.prune_pieces(rng.random((8, 6)), ticket, piece_ratio)
  prompt = rng.normal(size=(8, 12)).astype(np.float32)
  expected = stages.stack_masks([ticket] * 6)
  found = stages.stack_masks(
      [
          *(controls.random_masks(ticket, seed, "a") for seed in range(5)),
          controls.magnitude_masks(ticket, prompt),
      ]
  )
  for count in (masks_lib.kept_tokens, masks_lib.kept_pieces):
    assert count(found).tolist() == count(expected).tolist()
  # A token that has a piece is kept, and as many without one as in the ticket.
  some = found.piece_mask.any(axis=-1)
  assert (found.token_mask >= some).all()
  assert (found.token_mask.sum(axis=-1) == ticket.token_mask.sum()).all()


def test_tokens_without_pieces_are_seen_as_in_the_ticket():
  """The second lost its pieces alone, so `ignore` hides the third only."""
  pieces = np.array([[1, 1], [0, 0], [0, 0]], np.float32)
  ticket = PromptMasks(token_mask=TICKET.token_mask, piece_mask=pieces)
  # Tokens 0.5, 2, 4.
  prompt = np.array([[0, 1, 0, 1], [2] * 4, [4] * 4], np.float32)
  masks = controls.magnitude_masks(ticket, prompt)
  assert masks.token_mask.tolist() == [0, 1, 1]
  assert masks.piece_mask.tolist() == [[0, 0], [0, 0], [1, 1]]
  assert controls.random_masks(ticket, 3, "a").token_mask.sum() == 2


ALL = dataclasses.replace(
    CONFIG, search=dataclasses.replace(CONFIG.search, controls=pruning.CONTROLS)
)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
  """All controls of a finished search: experiment, tuned, winners, found."""
  source, _ = finished
  tuned = stages.run_tune(source)
  winners = strategies.run_strategy(source, tuned).winners
  experiment = make_experiment(tmp_path_factory.mktemp("controls"), ALL)
  return (
      experiment,
      tuned,
      winners,
      controls.run_controls(experiment, tuned, winners),
  )


def test_all_controls_and_seeds_train_in_one_table(trained):
  experiment, _, winners, (found, left_out) = trained
  assert left_out == []
  assert list(found) == list(pruning.CONTROLS)
  rows = result_of(experiment, "controls")["rows"]
  assert [(row["control"], row["seed"]) for row in rows] == [
      (control, seed)
      for control in ("reversed", "random", "magnitude", "length", "retrained")
      for seed in (3, 8)
  ]
  for control, table in found.items():
    assert [t.seed for t in table.tickets] == [3, 8]
    assert [t.control for t in table.tickets] == [control] * 2
    assert all("score" in row for row in table.validation)
  expected = [t.token_ratio for t in winners.tickets]
  assert [t.token_ratio for t in found["random"].tickets] == expected
  for control in ("length", "retrained"):
    assert [t.token_ratio for t in found[control].tickets] == [None, None]


def test_controls_start_from_the_tuned_prompt_or_afresh(trained):
  experiment, tuned, winners, (found, _) = trained
  arrays = arrays_of(experiment, "controls")
  for row in range(6):
    factor = arrays["token_mask"][row, :, None] * arrays["piece_mask"][row]
    np.testing.assert_array_equal(
        arrays["start"][row],
        tuned.prompt[row % 2] * np.repeat(factor, 3, axis=1),
    )
  kept = masks_lib.kept_tokens(winners.masks).tolist()
  for row, (seed, length) in enumerate(zip((3, 8), kept, strict=True)):
    assert 0 < length < 5
    alone = dataclasses.replace(
        CONFIG,
        prompt=dataclasses.replace(CONFIG.prompt, length=length),
        seeds=(seed,),
    )
    initial = stages.initial_table(
        make_experiment(experiment.workdir / "unused", alone)
    )
    start = arrays["start"][6 + row]
    np.testing.assert_array_equal(start[-length:], initial.prompt[0])
    assert not start[:-length].any()
  # Nothing is pruned of the tuned prompts that are trained again.
  np.testing.assert_array_equal(arrays["start"][8:], tuned.prompt)
  assert (arrays["token_mask"][8:] == 1).all()
  assert (arrays["piece_mask"][8:] == 1).all()
  assert (found["retrained"].prompt != tuned.prompt).any()
  np.testing.assert_array_equal(
      found["no_rewind"].prompt,
      masks_lib.apply_masks(tuned.prompt, winners.masks),
  )


def test_a_control_in_the_table_is_what_it_is_alone(trained, tmp_path):
  """Bit for bit, though alone nothing says that all positions are present."""
  experiment, tuned, winners, (found, _) = trained
  start, _ = controls.start_table(experiment, tuned, winners)
  for row in (1, 2, 4, 9):
    one = start.take([row])
    one = dataclasses.replace(
        one, masks=dataclasses.replace(one.masks, present=None)
    )
    alone = stages.run_training(
        make_experiment(tmp_path / str(row), ALL), "controls", one
    )
    table = found[start.tickets[row].control]
    np.testing.assert_array_equal(alone.prompt[0], table.prompt[row % 2])
    assert alone.validation[0] == table.validation[row % 2]


def test_a_length_prompt_is_a_run_of_that_length(trained, tmp_path):
  """The same seed, its own order of examples, clipping and initial values."""
  _, _, winners, (found, _) = trained
  table = found["length"]
  for row, seed in enumerate((3, 8)):
    length = int(masks_lib.kept_tokens(winners.masks)[row])
    config = dataclasses.replace(
        CONFIG,
        prompt=dataclasses.replace(CONFIG.prompt, length=length),
        seeds=(seed,),
    )
    alone = stages.run_tune(make_experiment(tmp_path / str(seed), config))
    np.testing.assert_allclose(
        table.prompt[row, -length:], alone.prompt[0], rtol=1e-3, atol=1e-3
    )
    assert not table.prompt[row, :-length].any()
    assert table.validation[row] == alone.validation[0]
    lines = tickets.ticket_lines(table)
    assert lines[row]["kept_tokens"] == length
    assert lines[row]["tunable_parameters"] == length * 12


def test_what_cannot_be_is_left_out_with_a_reason(finished, tmp_path):
  source, _ = finished
  config = dataclasses.replace(
      CONFIG,
      search=dataclasses.replace(
          CONFIG.search, controls=("reversed", "length", "no_rewind")
      ),
      prompt=dataclasses.replace(
          CONFIG.prompt, init="from_file", init_file="p.npy"
      ),
  )
  tuned = stages.run_tune(source)
  # Nothing is pruned of the first.
  masks = jax.tree.map(np.array, tuned.masks)
  masks.token_mask[1, 2:] = 0
  masks.piece_mask[1, 2:] = 0
  winners = dataclasses.replace(tuned, masks=masks)
  experiment = make_experiment(tmp_path, config)
  start, left_out = controls.start_table(experiment, tuned, winners)
  assert [(t.seed, t.control) for t in start.tickets] == [(8, "reversed")]
  assert start.masks.token_mask.tolist() == [[0, 0, 1, 1, 1]]
  assert [(line["method"], line["seed"]) for line in left_out] == [
      ("reversed", 3),
      ("length", 3),
      ("length", 8),
  ]
  assert "nothing was pruned" in left_out[0]["reason"]
  assert "a file of 5 tokens" in left_out[1]["reason"]


def test_no_controls_leave_nothing(finished, tmp_path):
  source, _ = finished
  tuned = stages.run_tune(source)
  experiment = make_experiment(tmp_path)
  assert controls.run_controls(experiment, tuned, tuned) == ({}, [])
  assert not files_of(tmp_path)


def test_finished_controls_again_touch_no_file_and_refuse_others(trained):
  experiment, tuned, winners, _ = trained
  before = files_of(experiment.workdir)
  controls.run_controls(experiment, tuned, winners)
  assert files_of(experiment.workdir) == before
  with pytest.raises(UserError, match="belongs to another config"):
    controls.run_controls(
        experiment,
        tuned,
        dataclasses.replace(
            winners,
            tickets=tuple(
                dataclasses.replace(t, token_ratio=0.7) for t in winners.tickets
            ),
        ),
    )
