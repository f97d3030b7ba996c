"""Cards and scores of a held-out run with random scores and controls."""

import dataclasses

import numpy as np
import pytest

from tests import tiny_experiment
from xprompt_jax import artifacts, halves, search, stored_prompts
from xprompt_jax.export import contents, model_card, run_records


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  config = dataclasses.replace(
      tiny_experiment.CONFIG,
      seeds=(3,),
      task=dataclasses.replace(tiny_experiment.CONFIG.task, protocol="heldout"),
      search=dataclasses.replace(
          tiny_experiment.CONFIG.search,
          importances=("gradient", "random"),
          controls=("random", "length"),
          auto_ratio=True,
      ),
  )
  workdir = tmp_path_factory.mktemp("run")
  experiment = tiny_experiment.make_experiment(workdir, config)
  whole = experiment.splits
  validation, heldout = halves.divide(whole["validation"])
  splits = {**whole, "validation": validation, "heldout": heldout}
  experiment = dataclasses.replace(experiment, splits=splits)
  return experiment, search.run_experiment(experiment)


def read(run, folder):
  experiment, _ = run
  path = str(experiment.workdir / folder / artifacts.PROMPT)
  prompt, masks = stored_prompts.read_prompts(path, experiment.config)
  return path, prompt, masks, run_records.read_record(path, prompt)


def card_of(run, folder, row):
  path, prompt, masks, record = read(run, folder)
  made = contents.make_export(
      run[0],
      prompt,
      masks,
      path=path,
      record=record,
      rows=(row,),
      output_format="safetensors",
      remove_pruned_tokens=False,
  )
  return made, model_card.card(run[0], made, {})


SCORED = "Heldout and test were looked at once, at the end."
DIVIDED = (
    "Validation is the half of its split that selects, heldout the other half."
)


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("rewind", f"so validation favours them. {DIVIDED} {SCORED}"),
        (
            "controls",
            "Each control's checkpoint was chosen on validation, so validation"
            f" favours it; none was chosen among others. {DIVIDED} {SCORED}",
        ),
        (
            "auto_ratio/tickets",
            "Each ticket's checkpoint was chosen on validation, so validation"
            " favours it; its ratios were chosen on training data."
            f" {DIVIDED} {SCORED}",
        ),
    ],
)
def test_the_card_has_both_halves(run, folder, text):
  experiment, _ = run
  made, card = card_of(run, folder, 0)
  assert text in card
  assert "There is no result" not in card
  for role, size in (("validation", 2), ("heldout", 2), ("test", 5)):
    value = made.tickets[0][role]["accuracy"]
    assert f"| 0 | 3 | {role} | {size} | accuracy | {value:.2f} |" in card
  halved = {"validation": "selects", "heldout": "reports"}
  for role, does in halved.items():
    digest = experiment.splits[role].fingerprint[:12]
    line = f"| {role} | validation, the half that {does} | 2 | {digest} |"
    assert line in card


def test_a_control_is_named_in_the_card(run):
  _, card = card_of(run, "controls", 1)
  assert "| trained numbers | control |" in card
  assert " | length |\n" in card
  _, card = card_of(run, "search_token", 2)
  assert "pieces that the table of tickets tells were pruned" in card
  assert " | random |\n" in card


def test_each_row_has_its_own_results(run):
  _, summary = run
  rows = {m["method"]: m["rows"] for m in summary["methods"]}
  for folder, methods in (
      ("tune", ["prompt_tuning"]),
      ("rewind", ["xprompt"]),
      ("controls", ["random", "length"]),
  ):
    record = read(run, folder)[3]
    for found, method in zip(record.rows, methods, strict=True):
      for role in ("validation", "heldout", "test"):
        assert found[role] == rows[method][0][role]
  record = read(run, "auto_ratio/tickets")[3]
  chosen = tiny_experiment.result_of(run[0], "auto_ratio")["rows"]
  assert record.stage == "auto_ratio" and len(chosen) == 4
  for found, own in zip(record.rows, chosen, strict=True):
    assert found["heldout"] == own["heldout"]
  assert record.config["task"]["name"] == "tiny"
  assert record.tickets_tried == 8


def test_scores_are_those_of_the_ticket(run):
  """Of the seed's two tickets of equal ratios, and of what nobody scored."""
  experiment, _ = run
  scored = tiny_experiment.result_of(experiment, "score_piece")["rows"]
  assert [row.get("importance") for row in scored] == [None, "random"]
  by_piece = tiny_experiment.arrays_of(
      experiment, "score_piece", artifacts.SCORES
  )["piece_scores"]
  assert (by_piece[0] != by_piece[1]).any()
  path, _, _, record = read(run, "search_piece")
  found = run_records.read_scores(path, record.rows)
  kinds = [row.get("importance") for row in record.rows]
  assert kinds == [None, None, "random", "random"]
  for scores, kind in zip(found, kinds, strict=True):
    expected = by_piece[0 if kind is None else 1]
    np.testing.assert_array_equal(scores["piece_scores"], expected)
    # Nothing scored the tuned prompt for random tickets.
    assert ("token_scores" in scores) == (kind is None)
  path, _, _, record = read(run, "controls")
  assert run_records.read_scores(path, record.rows) == ({}, {})
  path, _, _, record = read(run, "auto_ratio/tickets")
  own = tiny_experiment.arrays_of(
      experiment, "auto_ratio/score_piece", artifacts.SCORES
  )["piece_scores"]
  found = run_records.read_scores(path, record.rows)
  assert all("token_scores" in scores for scores in found)
  for scores, expected in zip(found[2:], own, strict=True):
    np.testing.assert_array_equal(scores["piece_scores"], expected)


def test_a_shorter_control_is_exported_as_long_as_it_is(run):
  made, _ = card_of(run, "controls", 1)
  # As long as the ticket is, in a table of longer prompts.
  assert made.prompt.shape[1] == made.tickets[0]["kept_tokens"] < 5
  assert made.scores == ({},)
