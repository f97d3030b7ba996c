"""VOCABULARY and EXTRA_IDS of the gin files that `t5x import` takes."""

import json

import pytest

from tests import command_line, huggingface_folders, vocabulary_files


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A T5 with V = 400 and no tokenizer."""
  tensors = huggingface_folders.tensors()
  for name in ("shared.weight", "lm_head.weight"):
    tensors[name] = tensors[name].repeat(40, axis=0)
  folder = tmp_path_factory.mktemp("source")
  return huggingface_folders.write(folder, tensors, vocab_size=400)


@pytest.fixture
def recipe(tmp_path):
  def written(text):
    path = tmp_path / "mine.gin"
    path.write_text('include "models/from_checkpoint.gin"\n' + text)
    return path

  return written


def arguments(source, recipe, output):
  return (
      "import",
      f"--checkpoint={source}",
      f"--output={output}",
      "--format=huggingface",
      f"--gin_file={recipe}",
  )


def told(capsys, *given):
  """The vocabulary that was told, and what was said beside the JSON lines."""
  assert command_line.run(*given) == 0
  printed = capsys.readouterr()
  return json.loads(printed.out.splitlines()[-1])["vocabulary"], printed.err


@pytest.mark.parametrize(
    "text",
    [
        'VOCABULARY = "bytes"\nEXTRA_IDS = 3\n',
        'A = "bytes"\nB = %A\nVOCABULARY = %B\nN = 3\nEXTRA_IDS = %N\n',
    ],
)
def test_macros_of_macros(tmp_path, capsys, source, recipe, text):
  output = tmp_path / "out"
  given = arguments(source, recipe(text), output)
  assert told(capsys, *given) == ("bytes", "")
  written = json.loads((output / "tokenizer_config.json").read_text())
  assert written["extra_ids"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MINE = @checkpoints.vocabulary_of()\nVOCABULARY = %MINE\n",
        "VOCABULARY = None\nEXTRA_IDS = None\n",
    ],
)
def test_what_is_left_to_the_checkpoint(tmp_path, capsys, source, recipe, text):
  output = tmp_path / "out"
  imported = "from __gin__ import dynamic_registration\n"
  imported += "from xprompt_jax.weights import checkpoints\n"
  path = recipe("")
  path.write_text(imported + path.read_text() + text)
  assert told(capsys, *arguments(source, path, output)) == (
      None,
      f"{output}: has no tokenizer: found none in {source}, expected"
      " spiece.model there, or VOCABULARY to name the vocabulary\n",
  )


def test_the_vocabulary_of_another_checkpoint(tmp_path, capsys, source, recipe):
  other = huggingface_folders.write(tmp_path / "other")
  content = vocabulary_files.with_sentinels(4)
  (other / "spiece.model").write_bytes(content)
  path = recipe("")
  path.write_text(
      "from __gin__ import dynamic_registration\n"
      "from xprompt_jax.weights import checkpoints\n"
      + path.read_text()
      + f'checkpoints.vocabulary_of.checkpoint = "{other}"\n'
      f'checkpoints.extra_ids_of.checkpoint = "{other}"\n'
  )
  given = arguments(source, path, tmp_path / "out")
  assert told(capsys, *given) == (str(other / "spiece.model"), "")
  assert (tmp_path / "out" / "spiece.model").read_bytes() == content
  config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
  assert config["extra_ids"] == 0


def test_stated_sentinels_count_for_a_folders_own_vocabulary(
    tmp_path, capsys, recipe
):
  tensors = huggingface_folders.tensors()
  for name in ("shared.weight", "lm_head.weight"):
    tensors[name] = tensors[name].repeat(40, axis=0)
  source = tmp_path / "source"
  huggingface_folders.write(source, tensors, vocab_size=400)
  (source / "spiece.model").write_bytes(vocabulary_files.bundled())
  path = recipe("EXTRA_IDS = 32\n")
  told(capsys, *arguments(source, path, tmp_path / "out"))
  config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
  assert config["extra_ids"] == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('EXTRA_IDS = "0"\n', "EXTRA_IDS: found '0', expected an integer >= 0"),
        (
            "EXTRA_IDS = True\n",
            "EXTRA_IDS: found True, expected an integer >= 0",
        ),
        ("EXTRA_IDS = -1\n", "EXTRA_IDS: found -1, expected an integer >= 0"),
        (
            "N = 1.5\nEXTRA_IDS = %N\n",
            "EXTRA_IDS: found 1.5, expected an integer >= 0",
        ),
        (
            "VOCABULARY = 3\n",
            "VOCABULARY: found 3, expected a SentencePiece file, 'bundled',"
            " 'bytes' or None",
        ),
        (
            'VOCABULARY = ""\n',
            "VOCABULARY: found '', expected a SentencePiece file, 'bundled',"
            " 'bytes' or None",
        ),
        (
            "VOCABULARY = %MINE\n",
            "{}: found no macro 'MINE', expected the gin files to set %MINE",
        ),
        (
            "A = %VOCABULARY\nVOCABULARY = %A\n",
            "VOCABULARY: maximum recursion depth exceeded",
        ),
    ],
)
def test_values_that_are_refused(
    tmp_path, capsys, source, recipe, text, message
):
  path = recipe(text)
  found = command_line.refused(
      capsys, *arguments(source, path, tmp_path / "out")
  )
  assert found.startswith(message.format(f"--gin_file={path}"))
  assert [p.name for p in tmp_path.iterdir()] == ["mine.gin"]
