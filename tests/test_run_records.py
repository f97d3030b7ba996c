"""What is found of a prompt in the result files around it."""

import numpy as np
import pytest

from tests import tiny_experiment
from xprompt_jax import artifacts, prompt_formats
from xprompt_jax.export import run_records
from xprompt_jax.types import UserError


def record_of(experiment, folder):
  path = experiment.workdir / folder / artifacts.PROMPT
  prompt = prompt_formats.read_prompt(path, 12)["prompt"]
  return str(path), run_records.read_record(str(path), prompt)


def stated(rows):
  """What a record has of a summary's rows: the results by PREDICT_BY."""
  apart = ("ways", "not_possible", "metric_sizes")
  return [{k: v for k, v in r.items() if k not in apart} for r in rows]


def test_a_run_records_what_stands_in_the_card(finished, monkeypatch):
  experiment, summary = finished
  path, record = record_of(experiment, "rewind")
  xprompt = stated(summary["methods"][-1]["rows"])
  assert record.stage == "rewind"
  assert list(record.rows) == xprompt
  assert [row["seed"] for row in record.rows] == [3, 8]
  assert all("test" in row and "validation" in row for row in record.rows)
  assert record.num_examples == {"train": 7, "validation": 4, "test": 5}
  assert record.tickets_tried == 8
  assert record.search["strategy"] == "linear"
  assert record.config["prompt"]["length"] == 5
  # The same from the folder as from the file in it, and from within it.
  folder = experiment.workdir / "rewind"
  prompt = prompt_formats.read_prompt(path, 12)["prompt"]
  assert run_records.read_record(str(folder), prompt) == record
  monkeypatch.chdir(folder)
  for here in (".", "./", "prompt.safetensors", "../rewind"):
    assert run_records.read_record(here, prompt) == record
    assert len(run_records.read_scores(here, record.rows)) == 2
  assert run_records.read_record(path, prompt[[0, 0, 1]]) is None


def test_another_prompt_has_no_part_in_what_the_run_recorded(finished):
  experiment, _ = finished
  path = experiment.workdir / "rewind" / artifacts.PROMPT
  prompt = prompt_formats.read_prompt(path, 12)["prompt"]
  found = artifacts.digest_arrays({"prompt": prompt[::-1]})
  meant = artifacts.digest_arrays({"prompt": prompt})
  with pytest.raises(UserError) as refusal:
    run_records.read_record(str(path), prompt[::-1])
  assert str(refusal.value) == (
      f"{path}: prompt: contents have sha256 {found[:12]}, expected"
      f" {meant[:12]} by {path.parent}/result.json: it is not the prompt of"
      " that run"
  )


def test_tuned_prompts_have_a_record_too(finished, monkeypatch):
  experiment, summary = finished
  _, record = record_of(experiment, "tune")
  assert list(record.rows) == stated(summary["methods"][1]["rows"])
  monkeypatch.chdir(experiment.workdir / "tune" / "state")
  prompt = prompt_formats.read_prompt("..", 12)["prompt"]
  assert run_records.read_record("..", prompt) == record
  # Tickets that did not win were never looked at on test.
  _, record = record_of(experiment, "search_token")
  assert len(record.rows) == 4
  assert [("test" in row) for row in record.rows].count(True) == 2


def test_tickets_of_equal_ratios_are_told_apart():
  """Those of random scores, and controls, have results of their own."""
  ticket = {"seed": 3, "token_ratio": 0.5, "piece_ratio": None}
  kinds = {"random": {"importance": "random"}, "length": {"control": "length"}}
  methods = [
      {"method": name, "rows": [{**ticket, **kind, "test": name}]}
      for name, kind in (*kinds.items(), ("xprompt", {}))
  ]
  for name, kind in (*kinds.items(), ("xprompt", {})):
    row = {**ticket, **kind}
    found = run_records._with_results([row], {"methods": methods}, [])
    assert found == ({**row, "test": name},)


def test_tickets_of_chosen_ratios_have_results_of_their_own():
  """Two rules may choose one ticket, and so may the search."""
  ticket = {"seed": 3, "token_ratio": 0.5, "piece_ratio": None}
  chosen = [{**ticket, "test": "a"}, {**ticket, "test": "b"}]
  methods = [{"method": "auto_loss", "rows": chosen[1:]}]
  summary = {"methods": methods}
  found = run_records._with_results([ticket, ticket], summary, chosen)
  assert found == tuple(chosen)
  assert run_records._with_results([ticket], summary, []) == (ticket,)


def test_a_file_of_nobody_has_no_record(tmp_path):
  np.save(tmp_path / "p.npy", np.ones((5, 12), np.float32))
  prompt = np.ones((1, 5, 12), np.float32)
  assert run_records.read_record(str(tmp_path / "p.npy"), prompt) is None
  assert run_records.read_record(str(tmp_path), prompt) is None


def test_a_run_that_has_not_ended_has_no_summary(finished, tmp_path):
  experiment, _ = finished
  for name in (artifacts.RESULT, artifacts.PROMPT):
    source = experiment.workdir / artifacts.TUNE / name
    target = tmp_path / artifacts.TUNE / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(source.read_bytes())
  path = tmp_path / artifacts.TUNE / artifacts.PROMPT
  prompt = prompt_formats.read_prompt(path, 12)["prompt"]
  record = run_records.read_record(str(path), prompt)
  assert (record.search, record.num_examples) == ({}, {})
  assert record.tickets_tried is None
  assert all("test" not in row for row in record.rows)
  assert record.config["task"]["name"] == "tiny"
  assert run_records.read_scores(str(path), record.rows) == ({}, {})


@pytest.mark.parametrize("row", [0, 1])
def test_scores_of_a_ticket(finished, row):
  experiment, _ = finished
  path, record = record_of(experiment, "rewind")
  (found,) = run_records.read_scores(path, [record.rows[row]])
  assert set(found) == {"token_scores", "piece_scores"}
  for granularity in ("token", "piece"):
    scores = tiny_experiment.arrays_of(
        experiment, f"score_{granularity}", artifacts.SCORES
    )
    name = f"{granularity}_scores"
    np.testing.assert_array_equal(found[name], scores[name][row])
  # A tuned prompt has those that were taken with nothing pruned.
  path, record = record_of(experiment, "tune")
  (found,) = run_records.read_scores(path, [record.rows[row]])
  scores = tiny_experiment.arrays_of(
      experiment, "score_token", artifacts.SCORES
  )
  for name, array in scores.items():
    np.testing.assert_array_equal(found[name], array[row])
