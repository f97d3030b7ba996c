"""`present`: files whose prompts differ in length, as controls/ has them."""

import dataclasses

import numpy as np
import pytest

from tests import examples, tiny_experiment
from tests.command_line import TINY, refused
from tests.prompt_files import refusal, save
from xprompt_jax import (
    artifacts,
    prompt_formats,
    prompt_library,
    prompts,
    stored_prompts,
    vocabularies,
)
from xprompt_jax import (
    masks as masks_lib,
)
from xprompt_jax.export import contents, exporting, removal
from xprompt_jax.types import PromptMasks, UserError

# R 2, P 5, K 4, H 12: the second prompt has three tokens.
PRESENT = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], np.float32)
PROMPT = np.array(examples.random_prompt(2, 5, 12, seed=4))
PROMPT[1, :2] = 0
ALONE = PROMPT[1:, 2:]
# Of a model; a file needs no more of it than H.
EMBEDDING = np.ones((9, 12), np.float32)
VOCABULARY = vocabularies.load_vocabulary("bytes", 0)


@pytest.fixture
def path(tmp_path):
  return str(
      save(
          tmp_path / "prompt.safetensors",
          prompt=PROMPT,
          token_mask=PRESENT,
          piece_mask=np.repeat(PRESENT[..., None], 4, axis=2),
          present=PRESENT,
          token_scores=np.arange(10.0).reshape(2, 5),
      )
  )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
  return tiny_experiment.make_experiment(
      tmp_path_factory.mktemp("run"),
      metrics=(tiny_experiment.EXACT_MATCH, tiny_experiment.CHECKSUM),
  )


def test_a_whole_table_keeps_it(path):
  prompt, masks = prompt_formats.read_table(path, embed_dim=12, num_pieces=1)
  np.testing.assert_array_equal(prompt, PROMPT)
  np.testing.assert_array_equal(masks.present, PRESENT)
  np.testing.assert_array_equal(masks.token_mask, PRESENT)


def test_one_prompt_is_as_long_as_it_is(path, experiment):
  """The same logits and answers as in the table, absent positions left out."""
  table, masks = stored_prompts.read_prompts(path, experiment.config)
  prompt, own = prompt_library.take_prompt(table, masks, path, 1)
  np.testing.assert_array_equal(prompt, ALONE[0])
  assert own.token_mask.tolist() == [1, 1, 1]
  assert (own.piece_mask.shape, own.present) == ((3, 4), None)
  row = (table[1:], masks_lib.take_rows(masks, np.array([1])))
  one = (prompt[None], masks_lib.full_masks(1, 3, 4))
  largest, _ = removal.logit_difference(experiment, row, one)
  assert largest < 1e-5
  # Positions that are seen would change them.
  seen = dataclasses.replace(row[1], present=None)
  largest, _ = removal.logit_difference(experiment, (row[0], seen), one)
  assert largest > 1e-3
  whole = experiment.evaluate("validation", table, masks)
  assert whole[1:] == experiment.evaluate("validation", *one)


def test_absent_positions_are_no_pruned_tokens(tmp_path, experiment):
  """So either `pruned_tokens` may read a run's shorter prompts."""
  folder = tmp_path / "out"
  folder.mkdir()
  file = save(folder / "p.safetensors", prompt=PROMPT, present=PRESENT)
  digest = exporting.export_note.sha256(file)
  note = {"file": file.name, "pruned_tokens": "ignore", "sha256": digest}
  artifacts.write_json(folder / "export.json", note)
  _, masks = stored_prompts.read_prompts(str(file), experiment.config)
  # Nothing but `present` says that they are not there.
  np.testing.assert_array_equal(masks.token_mask, PRESENT)


def make(path, experiment, output_format, rows):
  prompt, masks = stored_prompts.read_prompts(path, experiment.config)
  return contents.make_export(
      experiment,
      prompt,
      masks,
      path=path,
      record=None,
      rows=rows,
      output_format=output_format,
      remove_pruned_tokens=False,
  )


@pytest.mark.parametrize("name", ["peft", "npy", "safetensors", "compact"])
def test_every_format_takes_one_of_them(path, experiment, tmp_path, name):
  made = make(path, experiment, name, (1,))
  assert made.source_length == 3
  assert made.scores[0]["token_scores"].tolist() == [7, 8, 9]
  line = exporting.write_export(experiment, made, tmp_path / "out")
  assert (line["prompt_length"], line["tickets"][0]["kept_tokens"]) == (3, 3)
  found = prompt_formats.read_prompt(tmp_path / "out", 12)
  np.testing.assert_array_equal(found["prompt"], ALONE)
  assert "present" not in found


def test_no_format_takes_them_together(tmp_path, capsys):
  wide = np.ones((2, 5, 32), np.float32)
  path = save(tmp_path / "p", prompt=wide, present=PRESENT)
  out = tmp_path / "out"
  arguments = (f"--gin.PROMPT_FILE='{path}'", f"--output={out}")
  arguments = (*arguments, f"--workdir={tmp_path}")
  found = refused(capsys, "export", *TINY, "--format=compact", *arguments)
  assert found == (
      f"--format=compact: found prompts of 3 to 5 tokens in {path}, which"
      " compact cannot hold together; expected one of them, named by --row"
  )
  assert not out.exists()


def test_a_run_starts_from_one_of_them(path, experiment):
  config = prompts.PromptConfig(
      length=3, num_pieces=4, init="from_file", init_file=f"{path}#1"
  )
  found = prompts.initial_prompts(config, (0, 1), EMBEDDING, VOCABULARY)
  np.testing.assert_array_equal(found, np.concatenate([ALONE, ALONE]))
  config = dataclasses.replace(config, init_file=path)
  with pytest.raises(UserError) as refused:
    prompts.initial_prompts(config, (0, 1), EMBEDDING, VOCABULARY)
  assert str(refused.value) == (
      f"{path}: found 'prompts of several lengths', expected one of them,"
      f" {path}#ROW"
  )


@pytest.mark.parametrize(
    ("present", "line"),
    [
        (
            [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1]],
            "present: found 'other values', expected 0 (absent) in front and 1"
            " behind, at least one 1 in each row",
        ),
        (
            [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]],
            "present: found 'other values', expected 0 (absent) in front and 1"
            " behind, at least one 1 in each row",
        ),
        ([[1, 1, 1, 1]], "present: found (1, 4), expected (2, 5)"),
    ],
)
def test_what_is_no_length_is_refused(tmp_path, present, line):
  array = np.array(present, np.float32)
  file = save(tmp_path / "p", prompt=PROMPT, present=array)
  assert refusal(file, 12) == f"{file}: {line}"


def test_rows_of_one_shorter_length_need_no_present():
  masks = PromptMasks(
      token_mask=PRESENT[[1, 1]],
      piece_mask=np.repeat(PRESENT[[1, 1], :, None], 4, axis=2),
      present=PRESENT[[1, 1]],
  )
  prompt, masks = masks_lib.without_absent(PROMPT[[1, 1]], masks)
  assert (prompt.shape, masks.present) == ((2, 3, 12), None)
