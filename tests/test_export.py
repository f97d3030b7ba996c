"""What `t5x export` writes, measures, prints and refuses."""

import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import tiny_experiment
from tests.command_line import TINY, refused, run
from xprompt_jax import artifacts, prompt_formats, stored_prompts
from xprompt_jax.export import contents, exporting, model_card, run_records
from xprompt_jax.prompt_formats import npy
from xprompt_jax.types import UserError

FILES = {
    "peft": {"adapter_model.safetensors", "adapter_config.json"},
    "npy": {"prompt.npy"},
    "safetensors": {"prompt.safetensors"},
    "openprompt": {"soft_embeds.pt"},
    "compact": {"compact.safetensors"},
}
# R 2, P 5, K 4, H 12: a run of two seeds.
H, K = 12, 4


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.interop] * (name == "openprompt"))
        for name in FILES
    ]
)
def output_format(request):
  if request.param == "openprompt":
    request.getfixturevalue("torch")
  return request.param


def load(experiment, folder="rewind"):
  """Prompt, masks and path of what a stage left."""
  path = str(experiment.workdir / folder / artifacts.PROMPT)
  prompt, masks = stored_prompts.read_prompts(path, experiment.config)
  return prompt, masks, path


def make(experiment, source, output_format="npy", rows=(0,)):
  prompt, masks, path = source
  return contents.make_export(
      experiment,
      prompt,
      masks,
      path=path,
      record=run_records.read_record(path, prompt),
      rows=rows,
      output_format=output_format,
      remove_pruned_tokens=False,
  )


def masked(prompt, masks):
  keep = np.repeat(masks.piece_mask, H // K, axis=-1) > 0
  return np.where(keep, prompt, 0)


def files_of(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_what_is_read(finished, tmp_path, output_format):
  experiment, summary = finished
  winner = summary["methods"][-1]["rows"][1]
  prompt, masks, path = load(experiment)
  output = tmp_path / "new" / output_format
  made = make(experiment, (prompt, masks, path), output_format, rows=(1,))
  line = exporting.write_export(experiment, made, output)
  assert set(files_of(output)) == {
      "README.md",
      "export.json",
      *FILES[output_format],
  }
  # Nothing is left beside it.
  assert list(output.parent.iterdir()) == [output]
  found = prompt_formats.read_prompt(output, H)
  np.testing.assert_array_equal(found["prompt"], masked(prompt, masks)[[1]])
  zeros = found["prompt"][found["prompt"] == 0]
  assert len(zeros) and not np.signbit(zeros).any()
  np.testing.assert_array_equal(found["token_mask"], masks.token_mask[[1]])
  np.testing.assert_array_equal(found["piece_mask"], masks.piece_mask[[1]])
  assert line == {
      "format": output_format,
      "prompt": "rewind/prompt.safetensors",
      "tickets": [
          {
              "row": 1,
              "seed": 8,
              "token_ratio": winner["token_ratio"],
              "piece_ratio": winner["piece_ratio"],
              "kept_tokens": int(masks.token_mask[1].sum()),
              "kept_pieces": int(masks.piece_mask[1].sum()),
              "tunable_parameters": 3 * int(masks.piece_mask[1].sum()),
          }
      ],
      "prompt_length": 5,
      "pruned_tokens": "zero",
      "frozen_params": "f",
      "output": str(output),
      "bytes": line["bytes"],
      **({"dense_bytes": 240} if output_format == "compact" else {}),
  }


def test_the_same_export_gives_the_same_bytes(
    finished, tmp_path, output_format
):
  experiment, _ = finished
  for name in "ab":
    made = make(experiment, load(experiment), output_format)
    exporting.write_export(experiment, made, tmp_path / name)
  assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_safetensors_bring_masks_and_scores(finished, tmp_path):
  experiment, _ = finished
  prompt, masks, path = load(experiment)
  made = make(experiment, (prompt, masks, path), "safetensors", rows=(1,))
  exporting.write_export(experiment, made, tmp_path / "out")
  found = safetensors_numpy.load_file(tmp_path / "out" / "prompt.safetensors")
  assert {name: array.shape for name, array in found.items()} == {
      "prompt": (5, 12),
      "token_mask": (5,),
      "piece_mask": (5, 4),
      "token_scores": (5,),
      "piece_scores": (5, 4),
  }
  # Tokens were scored with nothing pruned, pieces behind the token masks.
  for granularity in ("token", "piece"):
    name = f"{granularity}_scores"
    scores = tiny_experiment.arrays_of(
        experiment, f"score_{granularity}", artifacts.SCORES
    )
    np.testing.assert_array_equal(found[name], scores[name][1])


def test_compact_takes_every_ticket_of_a_file(finished, tmp_path):
  experiment, _ = finished
  prompt, masks, path = load(experiment, "search_piece")
  rows = tuple(range(len(prompt)))
  made = make(experiment, (prompt, masks, path), "compact", rows)
  line = exporting.write_export(experiment, made, tmp_path / "out")
  assert len(rows) == 4
  tickets = [(t["row"], t["seed"], t["kept_pieces"]) for t in line["tickets"]]
  pieces = [int(m.sum()) for m in masks.piece_mask]
  assert tickets == [*zip((0, 1, 2, 3), (3, 3, 8, 8), pieces, strict=True)]
  assert line["dense_bytes"] == 4 * 5 * 12 * 4
  file = tmp_path / "out" / "compact.safetensors"
  assert line["bytes"] == file.stat().st_size
  found = prompt_formats.read_prompt(file, H)
  np.testing.assert_array_equal(found["prompt"], masked(prompt, masks))
  np.testing.assert_array_equal(found["token_mask"], masks.token_mask)
  np.testing.assert_array_equal(found["piece_mask"], masks.piece_mask)
  card = (tmp_path / "out" / "README.md").read_text()
  assert [f"### Row {row}\n" in card for row in (*rows, 4)] == [
      *[True] * 4,
      False,
  ]


def test_an_export_that_is_exported_again_keeps_its_counts(
    finished, tmp_path, output_format
):
  experiment, _ = finished
  _, masks, _ = source = load(experiment)
  first, second = tmp_path / "first", tmp_path / "second"
  made = make(experiment, source, output_format, rows=(1,))
  line = exporting.write_export(experiment, made, first)
  stored = stored_prompts.read_prompts(str(first), experiment.config)
  again = make(experiment, (*stored, str(first)), "npy")
  sizes = ("kept_tokens", "kept_pieces", "tunable_parameters")
  expected = {name: line["tickets"][0][name] for name in sizes}
  found = exporting.write_export(experiment, again, second)
  assert found["tickets"] == [{"row": 0, **expected}]
  tokens, pieces = int(masks.token_mask[1].sum()), masks.piece_mask[1].sum()
  assert (
      f"Its masks prune {5 - tokens} of 5 tokens, and {20 - int(pieces)} of 20"
      " pieces."
  ) in (second / "README.md").read_text()
  table = (second / "README.md").read_text().partition("## Kept tokens")[2]
  assert table.count(" of 4 |") == tokens


# What goes wrong


@pytest.fixture
def made(finished):
  experiment, _ = finished
  return experiment, make(experiment, load(experiment))


def write_and_fail(monkeypatch, made, output, error):
  def fail(*_):
    raise error

  with monkeypatch.context() as patched, pytest.raises(type(error)):
    patched.setattr(model_card, "card", fail)
    exporting.write_export(*made, output)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "full")])
def test_a_failed_export_leaves_nothing(made, tmp_path, monkeypatch, error):
  if isinstance(error, OSError):
    line = f"{tmp_path}/out: cannot write: full"
    error = UserError(line)
  write_and_fail(monkeypatch, made, tmp_path / "new" / "out", error)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "link"])
def test_folders_of_other_names(made, tmp_path, monkeypatch, name):
  here = tmp_path / "here"
  here.mkdir()
  monkeypatch.chdir(here)
  if name == "link":
    (tmp_path / name).symlink_to(here)
  output = pathlib.Path("." if name == "." else f"../{name}")
  beside = sorted(tmp_path.iterdir())
  write_and_fail(monkeypatch, made, output, KeyboardInterrupt())
  # As it was, in what it is and what it holds.
  assert sorted(tmp_path.iterdir()) == beside and not list(here.iterdir())
  exporting.write_export(*made, output)
  assert set(files_of(here)) == {"prompt.npy", "README.md", "export.json"}
  assert sorted(tmp_path.iterdir()) == beside
  assert (tmp_path / name).is_symlink() == (name == "link")
  # Where the program was started is still there.
  assert pathlib.Path.cwd() == here


def test_what_reads_back_differently_is_refused(made, tmp_path, monkeypatch):
  write = npy.write
  monkeypatch.setattr(
      npy, "write", lambda path, prompt: write(path, prompt * 2)
  )
  with pytest.raises(UserError) as refusal:
    exporting.write_export(*made, tmp_path / "out")
  assert str(refusal.value) == (
      f"{tmp_path}/out: prompt: read back other contents than were written,"
      " expected the same: the disk is not to be trusted"
  )
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(made, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError) as refusal:
    exporting.write_export(*made, tmp_path / "file" / "out")
  assert str(refusal.value) == (
      f"{tmp_path}/file/out: cannot write: Not a directory"
  )


def command(workdir, output, name="npy", *more):
  return (
      "export",
      *TINY,
      f"--format={name}",
      f"--output={output}",
      f"--workdir={workdir}",
      *more,
  )


def test_outputs_that_are_taken_are_refused(tiny_run, tmp_path, capsys):
  full, file = tmp_path / "full", tmp_path / "file"
  full.mkdir()
  (full / "a").touch()
  file.touch()
  for output in (full, file):
    assert refused(capsys, *command(tiny_run, output)) == (
        f"{output}: exists, expected a new or an empty folder"
    )


def test_a_run_without_a_prompt_is_refused(tmp_path, capsys):
  assert refused(capsys, *command(tmp_path, tmp_path / "out")) == (
      f"{tmp_path}: holds no trained prompt, expected"
      f" {tmp_path}/rewind/prompt.safetensors, or a prompt given by"
      " --gin.PROMPT_FILE"
  )
  assert not (tmp_path / "out").exists()


IGNORE = "--gin.PromptConfig.pruned_tokens='ignore'"


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        (
            "compact",
            ("--remove_pruned_tokens",),
            "--remove_pruned_tokens: found --format=compact, which holds kept"
            " pieces alone and the places they had, expected one of peft, npy,"
            " safetensors, openprompt",
        ),
        (
            "npy",
            ("--row=2",),
            "--row=2: {run}/rewind/prompt.safetensors holds 2 prompts, expected"
            " a row in [0, 2)",
        ),
        (
            "peft",
            (IGNORE,),
            "{run}/rewind/prompt.safetensors: found PromptConfig.pruned_tokens"
            " = 'ignore' and 4 pruned tokens, expected"
            " --gin.PromptConfig.pruned_tokens=\"'zero'\", as"
            " {run}/tune/result.json says",
        ),
        (
            "peft",
            (IGNORE, "--gin.PROMPT_FILE='{none}'"),
            "--format=peft: found PromptConfig.pruned_tokens = 'ignore' and 4"
            " pruned tokens, which peft cannot hide from attention; expected"
            " safetensors or compact, which keep masks, or"
            " --remove_pruned_tokens",
        ),
        (
            "npy",
            ("--remove_pruned_tokens", "--gin.PROMPT_FILE='{none}'"),
            "{none}: token_mask: found every token pruned, expected one that is"
            " kept",
        ),
    ],
)
def test_requests_that_are_refused(
    tiny_run, tmp_path, capsys, name, arguments, line
):
  paths = {"run": tiny_run, "none": tmp_path / "none.safetensors"}
  none = {"token_mask": np.zeros(4, np.float32), "prompt": np.ones((4, 32))}
  safetensors_numpy.save_file(none, paths["none"])
  out = tmp_path / "out"
  more = [argument.format(**paths) for argument in arguments]
  found = refused(capsys, *command(tiny_run, out, name, *more))
  assert found == line.format(**paths)
  assert not out.exists()


def test_without_torch_openprompt_is_refused_at_once(
    tiny_run, tmp_path, capsys, monkeypatch
):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  assert refused(capsys, *command(tiny_run, tmp_path / "o", "openprompt")) == (
      "--format=openprompt: needs torch, which is not installed: pip"
      " install 'xprompt-jax[torch]'; safetensors need none"
  )


def test_an_exported_prompt_scores_what_the_run_scored(
    tiny_run, tmp_path, capsys
):
  output = tmp_path / "out"
  assert run(*command(tiny_run, output, "peft", "--row=1")) == 0
  line = json.loads(capsys.readouterr().out)
  assert line["prompt"] == f"{tiny_run}/rewind/prompt.safetensors"
  assert line["output"] == str(output)
  # Longer than the file: the file decides.
  more = ("--gin.PROMPT_LENGTH=9", f"--gin.PROMPT_FILE='{output}'")
  files = (f"--workdir={tiny_run}", "--split=validation")
  assert run("eval", *TINY, *more, *files) == 0
  found = json.loads(capsys.readouterr().out)
  summary = json.loads((tiny_run / "result.json").read_text())
  expected = summary["methods"][-1]["rows"][1]
  assert found["score"] == expected["validation"]["score"]
  assert found["kept_pieces"] == expected["kept_pieces"]


def test_removal_through_the_command_line(tiny_run, tmp_path, capsys):
  output = tmp_path / "out"
  arguments = command(tiny_run, output, "npy", "--remove_pruned_tokens")
  assert run(*arguments) == 0
  line = json.loads(capsys.readouterr().out)
  # Half of 4 tokens are pruned.
  (ticket,) = line["tickets"]
  assert (ticket["row"], ticket["seed"]) == (0, 0)
  assert (line["removed_tokens"], line["prompt_length"]) == (2, 2)
  summary = json.loads((tiny_run / "result.json").read_text())
  recorded = summary["methods"][-1]["rows"][0]["validation"]
  assert line["validation"]["before"] == recorded
  assert np.load(output / "prompt.npy").shape == (2, 32)


def test_weights_of_another_run_are_refused(tiny_run, tmp_path, capsys):
  arguments = command(
      tiny_run, tmp_path / "out", "npy", "--gin.CHECKPOINT='random:9'"
  )
  line = refused(capsys, *arguments)
  assert f"{tiny_run}/run.json: belongs to another config" in line
  assert not (tmp_path / "out").exists()
