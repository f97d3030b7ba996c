"""The text beside an export, the words near a prompt, and a run's records."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples, tiny_experiment
from xprompt_jax import artifacts, prompt_formats
from xprompt_jax.export import (
    contents,
    exporting,
    markdown,
    model_card,
    run_records,
)
from xprompt_jax.nearest_words import nearest_words
from xprompt_jax.prompt_formats import peft
from xprompt_jax.types import PromptMasks


class Words:
  """Ids to letters: 3 specials, 4 pieces, 2 sentinels."""

  path = "words"
  vocab_size = 9
  extra_ids = 2
  eos_id = 1
  unk_id = 2
  fingerprint = ""

  def encode(self, text):
    raise NotImplementedError

  def decode(self, ids):
    raise NotImplementedError

  def piece(self, token_id):
    return ["???", "a_b", "c|", "d\n", "e"][token_id - 2]


# V 11, H 2: specials, pieces, sentinels, rows that are no ids.
EMBEDDING = np.array(
    [[9, 9], [9, 9], [9, 9], [2, 0], [3, 3], [0, 5], [-4, 0], *[[9, 9]] * 4],
    np.float32,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nearest_words_by_cosine(dtype):
  rows = np.array([[1, 0], [0, -7], [0, 0], [2, 2]], np.float32)
  embedding = jnp.asarray(EMBEDDING, dtype)
  found = nearest_words(rows, embedding, Words(), count=3)
  half = 0.7071
  assert [[(w, round(c, 4) + 0.0) for w, c in row] for row in found] == [
      [("a_b", 1.0), ("c|", half), ("d\n", 0.0)],
      # Of equal ones the lower id first.
      [("a_b", 0.0), ("e", 0.0), ("c|", -half)],
      [],
      [("c|", 1.0), ("a_b", half), ("d\n", half)],
  ]
  assert nearest_words(rows[:0], embedding, Words()) == []


def test_nearest_words_in_parts(monkeypatch):
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((3, 2)).astype(np.float32)
  whole = nearest_words(rows, EMBEDDING, Words())
  monkeypatch.setattr("xprompt_jax.nearest_words._CHUNK", 2)
  assert nearest_words(rows, EMBEDDING, Words()) == whole
  assert [len(row) for row in whole] == [4, 4, 4]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("▁the", "▁the"),
        ("a|b", "a\\|b"),
        ("*_`<>[]~&#$", "\\*\\_\\`\\<\\>\\[\\]\\~\\&\\#\\$"),
        ("\\", "\\\\"),
        ("a\nb\u202ec", "aU+000AbU+202Ec"),
        ("<0x0A>", "\\<0x0A\\>"),
        (0.5, "0.5"),
    ],
)
def test_text_that_does_nothing_in_markdown(text, shown):
  assert markdown.escape(text) == shown


def a_prompt(**fields):
  """Two rows of one token, of which the second is pruned: P 2, K 2, H 12."""
  token_mask = np.array([[1, 0]], np.float32)
  piece_mask = np.array([[[0, 1], [0, 0]]], np.float32)
  prompt = np.zeros((1, 2, 12), np.float32)
  prompt[0, 0, 6:] = np.arange(1, 7)
  values = {
      "output_format": "npy",
      "source": "some/p.npy",
      "rows": (0,),
      "prompt": prompt,
      "masks": PromptMasks(token_mask=token_mask, piece_mask=piece_mask),
      "positions": (0, 1),
      "scores": ({},),
      "record": None,
      "removed": None,
      "change": None,
      "base": peft.BaseModel(
          name=None, revision=None, num_layers=2, num_heads=3
      ),
      "on_hub": False,
  }
  return contents.Export(**{**values, **fields})


CARD = """\
---
tags:
- t5
- soft-prompt
- prompt-tuning
---

# Soft prompt for a frozen T5

A soft prompt of 2 tokens x 12 numbers to put in front of the embedded inputs of\
 a frozen T5 encoder. Its masks prune 1 of 2 tokens, and 3 of 4 pieces. Pruned entries\
 are zero.

## Load it

With NumPy, as one array [2, 12]:

```python
import numpy as np

prompt = np.load("prompt.npy")
```

In google-research/prompt-tuning:
`--gin_file=prompt_tuning/configs/prompts/from_file.gin` with
`--gin.PROMPT_LENGTH=2` and `--gin.PROMPT_FILE="'prompt.npy'"`.

With xprompt-jax, and the gin file of the model and the task:

    t5x eval --gin_file=RECIPE.gin --gin.PROMPT_FILE="'.'"

## What is kept

From some/p.npy: prompts of 2 tokens in 2 pieces each.

| row | kept tokens | kept pieces | kept numbers |
| --- | --- | --- | --- |
| 0 | 1 | 1 | 6 |

## Scores

None are recorded: the prompt was read from a file that lies in no run's folder.

## Kept tokens

Positions are those before anything was removed, counted from 0. Words are\
 pieces of the model's vocabulary whose embeddings have the largest cosine with\
 the token; a hint, not a meaning.

| position | kept pieces | nearest words (cosine) |
| --- | --- | --- |
| 0 | 1 of 2 | WORDS |

## Frozen model

|  |  |
| --- | --- |
| checkpoint | random:3 |
| weights kept in | - |
| sha256 of the weights | f |
| vocab size | 37 |
| emb dim | 12 |
| num heads | 3 |
| head dim | 5 |
| num encoder layers | 2 |
| num decoder layers | 1 |
| mlp dim | 17 |
| mlp activations | ('gelu', 'linear') |
| logits via embedding | False |
| relpos num buckets | 32 |
| relpos max distance | 128 |
| relpos per layer | False |
| dropout rate | 0.0 |
| dtype | float32 |
| float32 attention logits | False |
| remat | False |

## Versions

| package | version |
| --- | --- |
| jax | 1.2 |
"""


def record_of(path):
  prompt = prompt_formats.read_prompt(path, 12)["prompt"]
  return run_records.read_record(str(path), prompt)


def write_card(tmp_path, made):
  config = dataclasses.replace(tiny_experiment.CONFIG, model=examples.TINY)
  experiment = tiny_experiment.make_experiment(tmp_path, config)
  embedding = np.tile(np.eye(12, dtype=np.float32), (4, 1))[:37]
  experiment = dataclasses.replace(
      experiment,
      vocabulary=Words(),
      frozen_params={"token_embedder": {"embedding": embedding}},
  )
  return model_card.card(experiment, made, {"jax": "1.2"})


def test_a_whole_card(tmp_path):
  # Rows 3 to 6 of the embedding are unit vectors, and the token's first entry
  # that is not 0 is 1 of a length of sqrt(91), at 6.
  words = "e (0.10), a\\_b (0.00), c\\| (0.00), dU+000A (0.00)"
  card = write_card(tmp_path, a_prompt())
  assert card == CARD.replace("WORDS", words)


def test_hidden_tokens_are_spoken_of(tmp_path):
  experiment = tiny_experiment.make_experiment(tmp_path)
  config = dataclasses.replace(
      experiment.config,
      prompt=dataclasses.replace(
          experiment.config.prompt, pruned_tokens="ignore"
      ),
  )
  experiment = dataclasses.replace(experiment, config=config)
  card = model_card.card(experiment, a_prompt(), {})
  assert "Attention must not see the tokens whose `token_mask` is 0." in card


@pytest.mark.parametrize(
    ("base", "on_hub", "front", "code"),
    [
        (
            ("google/t5-small-lm-adapt", "abc"),
            True,
            'library_name: peft\nbase_model: "google/t5-small-lm-adapt"\n',
            'base = "google/t5-small-lm-adapt"\n'
            'tokenizer = AutoTokenizer.from_pretrained(base, revision="abc")\n',
        ),
        (
            ('a "folder"', None),
            False,
            "library_name: peft\ntags:",
            'base = "a \\"folder\\""\n'
            "tokenizer = AutoTokenizer.from_pretrained(base)\n",
        ),
        (
            (None, None),
            False,
            "library_name: peft\ntags:",
            'base = "FOLDER-OR-HUB-ID-OF-THE-T5"\n',
        ),
    ],
)
def test_the_base_model(tmp_path, base, on_hub, front, code):
  model = peft.BaseModel(
      name=base[0], revision=base[1], num_layers=2, num_heads=3
  )
  made = a_prompt(output_format="peft", base=model, on_hub=on_hub)
  card = write_card(tmp_path, made)
  assert card.startswith(f"---\n{front}")
  assert code in card
  assert ("`t5x import --format=huggingface`" in card.replace("\n", " ")) == (
      base[0] is None
  )


def test_the_card_names_folders_by_their_whole_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  experiment = tiny_experiment.make_experiment(tmp_path)
  (tmp_path / "T5X").mkdir()
  config = dataclasses.replace(experiment.config, checkpoint="T5X")
  experiment = dataclasses.replace(experiment, config=config)
  card = model_card.card(experiment, a_prompt(), {})
  assert f"\n| checkpoint | {markdown.escape(tmp_path / 'T5X')} |\n" in card


def test_what_masks_say_without_a_run(tmp_path):
  # One of 3 tokens was left out of the file.
  made = a_prompt(
      removed=1,
      positions=(0, 2),
      scores=({"token_scores": np.array([3.0, 2.0, 1.0])},),
  )
  card = write_card(tmp_path, made)
  assert "Its masks prune 2 of 3 tokens, and 5 of 6 pieces." in card
  assert "Importance is as the file states it.\n" in card
  assert "| 0 | 1 of 2 | 3 | e" in card
  for story in ("did harm", "XPrompt", "xprompt\n", "training examples"):
    assert story not in card.partition("With xprompt-jax")[0]
    assert story not in card.partition("## Which")[2]


def test_the_card_takes_the_runs_own_settings(finished, tmp_path):
  experiment, _ = finished
  path = str(experiment.workdir / "rewind" / artifacts.PROMPT)
  record = record_of(path)
  task = {**record.config["task"], "inputs_length": 77, "targets_length": 5}
  config = {**record.config, "task": task, "frozen_dtype": "bfloat16"}
  record = dataclasses.replace(record, config=config)
  card = write_card(tmp_path, a_prompt(record=record, output_format="peft"))
  for line in ("max_length=77", "max_new_tokens=5", "t5.bfloat16().float()"):
    assert line in card
  assert "tokens and pieces that did harm were pruned" in card
  assert "mean over the training examples" not in card


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (
            "tune",
            "The checkpoint was chosen on validation, so validation favours"
            " it. Test was looked at once, at the end.",
        ),
        (
            "search_piece",
            "Each ticket's checkpoint was chosen on validation, and so was"
            " each seed's winner among 8 tickets: validation favours what it"
            " chose. This file holds the losers too.",
        ),
    ],
)
def test_what_validation_chose(finished, tmp_path, stage, text):
  experiment, _ = finished
  path = experiment.workdir / stage / artifacts.PROMPT
  record = record_of(path)
  assert record.stage == stage
  assert text in write_card(tmp_path, a_prompt(record=record))


def test_the_card_of_a_run(finished, tmp_path):
  experiment, summary = finished
  path = experiment.workdir / "rewind" / artifacts.PROMPT
  prompt, masks = prompt_formats.read_table(path, embed_dim=12, num_pieces=4)
  made = contents.make_export(
      experiment,
      prompt,
      masks,
      path=str(path),
      record=run_records.read_record(str(path), prompt),
      rows=(1,),
      output_format="npy",
      remove_pruned_tokens=False,
  )
  exporting.write_export(experiment, made, tmp_path / "out")
  card = (tmp_path / "out" / "README.md").read_text()
  row = summary["methods"][-1]["rows"][1]
  scores = np.load(tmp_path / "out" / "prompt.npy")
  kept = [i for i in range(5) if scores[i].any()]
  token_scores = tiny_experiment.arrays_of(
      experiment, "score_token", artifacts.SCORES
  )["token_scores"][1]
  for line in (
      '- xprompt\n- "tiny"',
      "# Soft prompt for tiny",
      f"| 1 | 8 | {row['token_ratio']} | {row['piece_ratio']} |"
      f" {row['kept_tokens']} | {row['kept_pieces']} |"
      f" {row['tunable_parameters']} |",
      f"| 1 | 8 | validation | 4 | accuracy | {row['validation']['accuracy']:.2f}"
      " |",
      f"| 1 | 8 | test | 5 | accuracy | {row['test']['accuracy']:.2f} |",
      "were chosen on validation among 8 tickets, so validation favours them."
      " Test was looked at once, at the end.",
      "| prompt: init | random\\_uniform |",
      "| Adafactor: learning rate | 0.3 |",
      "| training: num steps | 4 |",
      "| search: rewind to | tuned |",
      "| test | not recorded | 5 | ",
      "| seeds of the run | \\[3, 8\\] |",
      "| position | kept pieces | importance | nearest words (cosine) |",
      *(f"\n| {i} | " for i in kept),
      *(f" of 4 | {token_scores[i]:.3g} | \\<0x" for i in kept),
  ):
    assert line in card
  assert str(experiment.workdir) not in card


def test_the_card_of_a_run_that_has_not_ended(finished, tmp_path):
  experiment, _ = finished
  path = experiment.workdir / "tune" / artifacts.PROMPT
  record = record_of(path)
  rows = tuple({k: v for k, v in r.items() if k != "test"} for r in record.rows)
  record = dataclasses.replace(record, rows=rows, tickets_tried=None)
  card = write_card(tmp_path, a_prompt(record=record))
  assert (
      "The checkpoint was chosen on validation, so validation favours it. There"
      " is no result on data that had no part in the choice."
  ) in card
