"""How alike prompts are, as SPoT measures it."""

import struct

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import command_line
from xprompt_jax import similarity

# Two tokens along x and y, one along x, one at 45 degrees, and its opposite.
XY = np.array([[1.0, 0.0], [0.0, 2.0]])
X = np.array([[3.0, 0.0]])
DIAGONAL = np.array([[0.5, 0.5]])


def test_similarities():
  found = similarity.similarities([XY, X, DIAGONAL, -DIAGONAL])
  # The mean of XY is (0.5, 1).
  cosine = 1 / 5**0.5
  half, diagonal = 0.5**0.5, 3 / 10**0.5
  np.testing.assert_allclose(
      found["cosine_of_means"],
      [
          [1, cosine, diagonal, -diagonal],
          [cosine, 1, half, -half],
          [diagonal, half, 1, -1],
          [-diagonal, -half, -1, 1],
      ],
      atol=1e-12,
  )
  # XY with itself: two pairs at 0 degrees, two at 90.
  np.testing.assert_allclose(
      found["mean_of_cosines"],
      [
          [0.5, 0.5, half, -half],
          [0.5, 1, half, -half],
          [half, half, 1, -1],
          [-half, -half, -1, 1],
      ],
      atol=1e-12,
  )


def test_the_second_measure_is_the_mean_over_all_pairs():
  rng = np.random.default_rng(0)
  one, two = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
  pairs = [
      a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in one for b in two
  ]
  found = similarity.similarities([one, two])["mean_of_cosines"]
  assert found[0, 1] == pytest.approx(np.mean(pairs))


@pytest.fixture
def files(tmp_path):
  """Two files: one prompt; two prompts, of the second a token is pruned."""
  np.save(tmp_path / "rte.npy", XY.astype(np.float32))
  safetensors_numpy.save_file(
      {
          "prompt": np.stack([XY, XY]).astype(np.float32),
          "token_mask": np.array([[1, 1], [1, 0]], np.int8),
          "piece_mask": np.ones((2, 2, 1), np.int8),
      },
      tmp_path / "boolq.safetensors",
  )
  return tmp_path


def test_the_command(files, capsys):
  output = files / "out"
  status = command_line.run(
      "similarity",
      f"--prompt=rte={files / 'rte.npy'}",
      f"--prompt=boolq={files / 'boolq.safetensors'}#1",
      f"--output={output}",
  )
  assert status == 0
  # Of boolq's second prompt the token along x is left.
  assert (output / "cosine_of_means.csv").read_text() == (
      ",rte,boolq\nrte,1.000000,0.447214\nboolq,0.447214,1.000000\n"
  )
  assert (output / "mean_of_cosines.csv").read_text() == (
      ",rte,boolq\nrte,0.500000,0.500000\nboolq,0.500000,1.000000\n"
  )
  picture = (output / "similarity.png").read_bytes()
  assert picture.startswith(b"\x89PNG")
  width, height = struct.unpack(">II", picture[16:24])
  assert width > 2 * height > 400
  assert sorted(path.name for path in output.iterdir()) == [
      "cosine_of_means.csv",
      "mean_of_cosines.csv",
      "similarity.png",
  ]
  assert capsys.readouterr().out.splitlines() == [
      "cosine of the mean tokens:",
      "          rte   boolq",
      "rte     1.000   0.447",
      "boolq   0.447   1.000",
      "",
      "mean cosine over pairs of tokens:",
      "          rte   boolq",
      "rte     0.500   0.500",
      "boolq   0.500   1.000",
      "",
      f"{output / 'cosine_of_means.csv'}",
      f"{output / 'mean_of_cosines.csv'}",
      f"{output / 'similarity.png'}",
  ]


@pytest.mark.parametrize(
    ("prompts", "line"),
    [
        (["a=rte.npy"], "--prompt: found 1, expected two prompts or more"),
        (
            ["a=rte.npy", "b=wide.npy"],
            "--prompt=b=FOLDER/wide.npy: found tokens of 3 numbers, expected 2"
            " as in FOLDER/rte.npy",
        ),
        (
            ["a=rte.npy", "b=zero.npy"],
            "--prompt=b=FOLDER/zero.npy: found 'only zeros', expected a token"
            " that is kept",
        ),
        (
            ["a=rte.npy", "b=opposite.npy"],
            "--prompt=b=FOLDER/opposite.npy: found 'tokens whose mean is zero',"
            " expected a mean token that has a direction",
        ),
        (
            ["a=nan.npy", "b=rte.npy"],
            "FOLDER/nan.npy: prompt: found 'NaN or infinity', expected finite"
            " numbers",
        ),
        (
            ["a=rte.npy", "b=rte.npy#1"],
            "--prompt=b=FOLDER/rte.npy#1: FOLDER/rte.npy holds 1 prompts,"
            " expected a row in [0, 1)",
        ),
    ],
)
def test_refused(files, capsys, prompts, line):
  np.save(files / "wide.npy", np.ones((2, 3), np.float32))
  np.save(files / "zero.npy", np.zeros((2, 2), np.float32))
  # In float64 these add up to 1.4e-17.
  opposite = np.array([[0.1, 1], [0.2, 1], [-0.1, -1], [-0.2, -1]])
  np.save(files / "opposite.npy", opposite.astype(np.float32))
  np.save(files / "nan.npy", np.array([[1, 1], [np.nan, 1]], np.float32))
  flags = [f"--prompt={p.replace('=', f'={files}/')}" for p in prompts]
  output = files / "out"
  found = command_line.refused(
      capsys, "similarity", *flags, f"--output={output}"
  )
  assert found == line.replace("FOLDER", str(files))
  assert not output.exists()


def test_a_gin_file_is_refused(capsys):
  found = command_line.refused(
      capsys, "similarity", "--gin_file=x.gin", "--output=o"
  )
  assert found == (
      "--gin_file=x.gin: found a gin file, expected none: similarity needs no"
      " model"
  )
