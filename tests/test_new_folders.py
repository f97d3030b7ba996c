"""Folders that appear whole or not at all."""

import secrets

import pytest

from tests.huggingface_folders import refused
from xprompt_jax.weights import new_folders


def written(folder, text="whole"):
  with new_folders.new_folder(folder) as temporary:
    (temporary / "file").write_text(text)


def test_a_folder_of_somebody_else_stays(tmp_path, monkeypatch):
  monkeypatch.setattr(secrets, "token_hex", lambda size: "same")
  target = tmp_path / "target"
  other = tmp_path / ".same.part"
  other.mkdir()
  (other / "theirs").write_text("theirs")
  assert refused(written, target) == f"{target}: cannot write: File exists"
  assert (other / "theirs").read_text() == "theirs"
  assert [p.name for p in tmp_path.iterdir()] == [".same.part"]


def test_two_that_write_at_once(tmp_path):
  # One process stands for two with the same number.
  target = tmp_path / "target"

  def second():
    with new_folders.new_folder(target) as temporary:
      (temporary / "file").write_text("second")
      written(target, "first")

  assert refused(second) == f"{target}: cannot write: Directory not empty"
  assert [p.name for p in tmp_path.iterdir()] == ["target"]
  assert (target / "file").read_text() == "first"


@pytest.mark.parametrize("exists", [False, True])
def test_a_name_as_long_as_names_may_be(tmp_path, exists):
  target = tmp_path / ("n" * 255)
  if exists:
    target.mkdir()
  written(target)
  assert [p.name for p in target.iterdir()] == ["file"]
  assert list(tmp_path.iterdir()) == [target]


def test_others_may_read_it_as_any_new_folder(tmp_path):
  written(tmp_path / "target")
  (tmp_path / "plain").mkdir()
  expected = (tmp_path / "plain").stat().st_mode
  assert (tmp_path / "target").stat().st_mode == expected


@pytest.mark.parametrize("output", ["new", "a/b/new", "empty"])
def test_looking_leaves_nothing(tmp_path, output):
  (tmp_path / "empty").mkdir()
  new_folders.check_free(tmp_path / output)
  assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("file/new", "cannot write: Not a directory"),
        ("file/a/new", "cannot write: Not a directory"),
        ("nowhere/new", "cannot write: Not a directory"),
        ("a/" + "n" * 256, "cannot write: File name too long"),
        ("file", "exists, expected a new or an empty folder"),
        ("nowhere", "exists, expected a new or an empty folder"),
    ],
)
def test_places_that_are_not_free(tmp_path, output, reason):
  (tmp_path / "file").touch()
  (tmp_path / "nowhere").symlink_to(tmp_path / "file" / "below")
  path = tmp_path / output
  assert refused(new_folders.check_free, path) == f"{path}: {reason}"
  assert refused(written, path) == f"{path}: {reason}"
  found = sorted(p.name for p in tmp_path.iterdir())
  assert found == ["file", "nowhere"]
