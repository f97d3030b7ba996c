"""A wheel carries what a checkout has: gin files, tasks, bundled model."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
_LEFT_OUT = shutil.ignore_patterns("__pycache__")


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package(tmp_path):
  source = tmp_path / "source"
  shutil.copytree(
      ROOT / "xprompt_jax", source / "xprompt_jax", ignore=_LEFT_OUT
  )
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source / name)
  # The build writes into its source folder, hence the copy.
  options = ("--quiet", "--no-deps", "--no-build-isolation")
  pip = (sys.executable, "-m", "pip", "wheel", *options)
  subprocess.run((*pip, "--wheel-dir", tmp_path, source), check=True)
  (wheel,) = tmp_path.glob("xprompt_jax-*.whl")
  with zipfile.ZipFile(wheel) as archive:
    packed = {n for n in archive.namelist() if n.startswith("xprompt_jax/")}
    (entry_points,) = (
        archive.read(n).decode()
        for n in archive.namelist()
        if n.endswith("entry_points.txt")
    )
  expected = {
      str(path.relative_to(source))
      for path in (source / "xprompt_jax").rglob("*")
      if path.is_file()
  }
  assert packed == expected
  assert "xprompt_jax/gin/models/t5_1_1_large.gin" in packed
  assert "t5x = xprompt_jax.main:main" in entry_points
  assert "xprompt = xprompt_jax.main:main" in entry_points
