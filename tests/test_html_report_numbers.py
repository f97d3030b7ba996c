"""Numbers of the report that have closed forms, and figures at their edges."""

import json

import numpy as np
import pytest

from tests import report_files
from xprompt_jax import nearest_words
from xprompt_jax.html_report import (
    charts,
    content,
    maps,
    names,
    sections,
    settings,
    sizes,
)
from xprompt_jax.html_report.reading import parts, read_runs

# vocab_size 32128, head_dim 64, as T5 1.1 and its LM-adapted form have it.
LARGE = {
    "vocab_size": 32128,
    "emb_dim": 1024,
    "num_heads": 16,
    "head_dim": 64,
    "num_encoder_layers": 24,
    "num_decoder_layers": 24,
    "mlp_dim": 2816,
    "mlp_activations": ["gelu", "linear"],
}
XL = {**LARGE, "emb_dim": 2048, "num_heads": 32, "mlp_dim": 5120}
XXL = {**LARGE, "emb_dim": 4096, "num_heads": 64, "mlp_dim": 10240}
# T5 1.0 small: one table, one activation.
SMALL = {
    **LARGE,
    "emb_dim": 512,
    "num_heads": 8,
    "num_encoder_layers": 6,
    "num_decoder_layers": 6,
    "mlp_dim": 2048,
    "mlp_activations": ["relu"],
    "logits_via_embedding": True,
}


@pytest.mark.parametrize(
    ("model", "count", "short"),
    [
        (SMALL, 60_506_624, "60.5M"),
        (LARGE, 783_150_080, "783M"),
        (XL, 2_849_757_184, "2.85B"),
        (XXL, 11_135_332_352, "11.1B"),
    ],
)
def test_numbers_of_a_t5(model, count, short):
  assert sizes.model_parameters(model, "f") == count
  assert sizes.short(count) == short


def test_the_share_that_the_paper_states():
  assert sizes.share(20 * 2048, 2_849_757_184) == "0.0014 %"
  assert sizes.share(20, 11_135_332_352) == "0.00000018 %"
  assert sizes.share(1, 40) == "2.5 %"
  assert sizes.share(1, 1) == "100 %"
  assert sizes.share(0, 5) == "0 %"


def test_columns_of_numbers():
  table = content.Table(
      name="t",
      caption="c",
      columns=["name", "score", "interval", "share", "nothing", "mixed"],
      rows=[
          ["3", "1.0 ± 0.5 (3/4)", "[-1.00, +2.00]", "0.1 %", "-", "1"],
          ["a", "-", "-", "100 %", "-", "b|c"],
      ],
  )
  assert table.numeric == [False, True, True, True, False, False]
  assert table.as_markdown().splitlines()[1:] == [
      "| --- | ---: | ---: | ---: | --- | --- |",
      "| 3 | 1.0 ± 0.5 (3/4) | [-1.00, +2.00] | 0.1 % | - | 1 |",
      "| a | - | - | 100 % | - | b\\|c |",
  ]


def test_settings_that_label_runs(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "sweep",
      long={"prompt": {"length": 20}, "search": {"controls": ["reversed"]}},
      short={"prompt": {"length": 5}, "splits": {"train": "b" * 64}},
  )
  runs = read_runs([suite])
  # Neither what stands beside the search nor fingerprints are settings.
  assert settings.differing(runs) == ["prompt.length"]
  alone, (sweep,) = settings.split_up([p for run in runs for p in parts(run)])
  assert alone == []
  assert sweep.labels == (("5",), ("20",))


def test_runs_that_differ_in_their_weights_alone_are_named(tmp_path):
  suite = report_files.write_suite(tmp_path / "sweep", lm={}, t5={})
  found = [part for run in read_runs([suite]) for part in parts(run)]
  _, (sweep,) = settings.split_up(found)
  assert sweep.titles == ["run"]
  assert sweep.labels == (("lm",), ("t5",))


def test_three_levels_of_one_run(tmp_path):
  methods = {
      "prompt_tuning": (2,),
      "token": (2,),
      "piece": (3,),
      "xprompt": (4,),
  }
  run = report_files.write_run(tmp_path / "rte", methods=methods)
  found = {s.anchor: s for s in sections.build(read_runs([run]))}
  table, on_test = found["granularity"].items
  assert on_test.caption == "Scores in percent by granularity, on test"
  assert on_test.rows == table.rows
  assert [list(row) for row in table.rows] == [
      ["prompt tuning", "50.00 (2/4)"],
      ["token pruning", "50.00 (2/4)"],
      ["piece pruning", "75.00 (3/4)"],
      ["XPrompt", "100.00 (4/4)"],
  ]


def test_values_as_text():
  assert names.value(["token", "piece"]) == "token and piece"
  assert names.value("runs/a_b") == "runs/a_b"
  assert names.value("first_rows") == "first rows"
  assert names.value(None) == "-"
  assert names.value(True) == "yes"
  assert names.value(0.25) == "0.25"


@pytest.mark.parametrize(
    ("kept", "pruned"),
    [([1.0], []), ([2.0, 2.0], [2.0]), ([0.0, 1.0], []), ([1e-9, 1.0], [1e-4])],
)
def test_histograms_of_any_scores(kept, pruned):
  found = maps.histogram(
      "h", "caption", np.array(kept), np.array(pruned), "tokens"
  )
  assert f"{len(kept)} kept, {len(pruned)} pruned" in found.alt


def test_maps_of_scores_that_are_all_zero():
  zero = np.zeros((3, 2))
  found = maps.saliency("s", "caption", zero, zero, np.zeros((3, 2)))
  assert "6 of 6 pieces are pruned" in found.alt


def test_masking_begins_with_what_is_not_masked():
  rows = [
      {"order": "importance", "num_masked": 2, "test": {"score": 40.0}},
      {"order": "importance", "num_masked": 2, "test": {"score": 50.0}},
      {"order": "random", "num_masked": 2, "test": {"score": 30.0}},
  ]
  found = charts.masking("m", "caption", rows, [60.0], "test")
  assert found.alt == (
      "Line chart of scores by number of masked tokens. least important first 0:"
      " 60.0, 2: 45.0; at random 0: 60.0, 2: 30.0."
  )


class _Words:
  """Eight pieces after three specials, no sentinels."""

  path = "words"
  vocab_size = 11
  extra_ids = 0
  eos_id = 1
  unk_id = 2
  fingerprint = ""

  def encode(self, text):
    raise NotImplementedError

  def decode(self, ids):
    raise NotImplementedError

  def piece(self, token_id):
    return f"w{token_id}"


def test_nearest_words_are_written_once(tmp_path):
  report_files.write_json(
      tmp_path / "rewind/result.json", {"rows": [{"seed": 7, "kept_tokens": 1}]}
  )
  report_files.write_arrays(
      tmp_path / "rewind/prompt.safetensors",
      prompt=np.array([[[0, 9, 0, 2], [1, 1, 1, 1]]], np.float32),
      piece_mask=np.array([[[0, 1], [0, 0]]], np.float32),
  )
  embedding = np.zeros((11, 4), np.float32)
  embedding[3] = [0, 1, 0, 0]
  embedding[4] = [0, 0, 3, 4]
  nearest_words.write(tmp_path, embedding, _Words())
  path = tmp_path / nearest_words.FILE
  (row,) = json.loads(path.read_text())["rows"]
  assert row["seed"] == 7
  first, second = row["tokens"]
  # Masked, the first token is (0, 0, 0, 2).
  assert (first["position"], first["kept"]) == (0, True)
  assert first["words"][:2] == [["w4", 0.8], ["w3", 0.0]]
  assert len(first["words"]) == 5
  assert second == {"position": 1, "kept": False, "words": []}
  path.write_text("{}")
  nearest_words.write(tmp_path, embedding, _Words())
  assert path.read_text() == "{}"


def test_runs_without_final_tickets_have_no_words(tmp_path):
  nearest_words.write(tmp_path, np.zeros((11, 4), np.float32), _Words())
  assert list(tmp_path.iterdir()) == []
