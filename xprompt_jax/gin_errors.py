"""What gin refuses, said in one line: found and expected.

`main.py` reads gin files; gin itself is not imported here.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
import re
import tokenize

_FOLDER = pathlib.Path(__file__).parent / "gin"
_VALUES = "10, 0.5, 'text', (1, 2), True or None"
# What gin, and the files it imports, raise for a mistake in them.
ERRORS = (
    AttributeError,
    ImportError,
    KeyError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def one_line(text: object) -> str:
  """Text without line ends."""
  return " ".join(str(text).split())


def _config_parameters() -> dict[str, list[str]]:
  """The parameters of each config class that gin can bind, by its name."""
  from xprompt_jax import experiment

  root = experiment.ExperimentConfig
  classes = [root, *(f.type for f in dataclasses.fields(root))]
  return {
      c.__name__: [f.name for f in dataclasses.fields(c)]
      for c in classes
      if isinstance(c, type) and dataclasses.is_dataclass(c)
  }


def _explain_name(text: str) -> str | None:
  """What gin says of a name it does not know, as found and expected."""
  if m := re.match(r"Configurable '(.+?)' doesn't have a .* '(.+?)'", text):
    known = _config_parameters().get(m[1].rpartition(".")[2], [])
    expected = f", expected one of {', '.join(known)}" if known else ""
    return f"found no parameter {m[2]!r} of {m[1]}{expected}"
  if m := re.match(r"No configurable matching (?:reference )?'@?(.+?)'", text):
    classes = ", ".join(_config_parameters())
    return f"found no class {m[1]!r}, expected one of {classes}"
  if m := re.match(r"No bindings specified for '(.+?)/gin.macro'", text):
    return f"found no macro {m[1]!r}, expected the gin files to set %{m[1]}"
  if m := re.match(r"No module named '(.+?)'", text):
    return f"found no Python module {m[1]!r}, expected one that is installed"
  return None


def explain(
    error: Exception, source: str, whole: str, macros: Mapping[str, str]
) -> str:
  """One line for what gin refuses: where, what was found, what was expected.

  Args:
    error: as gin raised it.
    source: the flag that was being read.
    whole: which gin files are enough.
    macros: those of the files read so far, with their values as text.
  """
  text = one_line(error)
  if m := re.search(r'In file "(.+?)", line (\d+)', text):
    source = f"{m[1]}, line {m[2]}"
  if m := re.match(r"Unable to open file: (.+?)\. Searched", text):
    recipes = sorted(path.name for path in _FOLDER.glob("xprompt_*.gin"))
    return (
        f"{source}: found no file {m[1]}, expected a path, a file in"
        f" --gin_search_paths, or one of {', '.join(recipes)}"
    )
  if "set to `%gin.REQUIRED`" in text:
    missing = [k for k, v in macros.items() if v == "%gin.REQUIRED"]
    return (
        f"{', '.join(missing) or source}: found no value, expected a gin file"
        " that sets it, or --gin.NAME=VALUE"
    )
  if isinstance(error, tokenize.TokenError):
    return f"{source}: found a bracket that is not closed, expected NAME=VALUE"
  if isinstance(error, SyntaxError):
    if error.filename:
      line = (error.text or "").strip()
      source = f"{error.filename}, line {error.lineno}: {line!r}"
    return (
        f"{source}: found no Python value, expected NAME=VALUE with {_VALUES}"
    )
  if "'> in the Gin registry" in text or (
      isinstance(error, TypeError) and "missing" in text
  ):
    return f"{source}: found no whole configuration, expected {whole}"
  if explained := _explain_name(text):
    return f"{source}: {explained}"
  # gin adds the call in which a config refused its fields.
  return f"{source}: {text.partition(' In call to configurable')[0]}"
