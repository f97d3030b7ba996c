"""Finds a model of the Hugging Face hub on this machine, or fetches it.

huggingface_hub does the work, with its cache and its environment variables
(HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). It is imported when a hub id
is resolved and not before. `huggingface.py` reads the folder that comes back.
"""

from collections.abc import Iterator
import contextlib
import functools
import importlib.util
import pathlib
import re
import sys
from typing import Any
import warnings

from xprompt_jax import artifacts
from xprompt_jax.types import UserError
from xprompt_jax.weights import huggingface_files as files
from xprompt_jax.weights import huggingface_tokenizer
from xprompt_jax.weights.huggingface_config import CONFIG, GENERATION_CONFIG

# Beside the weights: the configuration and whatever tokenizers are made of.
_SMALL_FILES = (CONFIG, GENERATION_CONFIG, *huggingface_tokenizer.FILES)
# Until the hub counts as out of reach.
_SECONDS = 20
_SHARD = r"-\d+-of-\d+"


@functools.cache
def resolve(name: str) -> pathlib.Path:
  """The local folder of a model of the hub.

  Online, the files that are needed and not yet in the cache are fetched: the
  weights in one format only, safetensors where there are any. Offline, or where
  the hub cannot be reached, the cache has to have them. A process asks once for
  each name, so that all of it sees the same revision.

  Args:
    name: `OWNER/NAME` or `NAME`, with `@REVISION` for a branch, tag or commit.

  Returns:
    The snapshot's folder in the cache.

  Raises:
    UserError: no such model or revision, no access to it, no network and not
      in the cache, or no weights in it.
  """
  repo, _, revision = name.partition("@")
  with _one_line(name, repo, revision), _quiet_unless_terminal():
    import huggingface_hub

    found, commit = _listed_files(repo, revision or None)
    wanted = _wanted(name, found)
    snapshot = huggingface_hub.snapshot_download(
        repo,
        # A branch may have moved on since its files were listed.
        revision=commit or revision or None,
        # What a cached snapshot holds is looked at below.
        allow_patterns=wanted or [CONFIG],
        local_files_only=not wanted,
    )
    folder = pathlib.Path(snapshot)
    if commit and commit != revision:
      _record(folder, revision or "main", commit)
  return _checked(name, folder)


def _record(folder: pathlib.Path, revision: str, commit: str) -> None:
  """Notes in the cache which commit a branch or tag was, for offline use.

  huggingface_hub does so where it is asked for the branch, and not where it is
  asked for the commit.
  """
  # git has no such names, whatever a hub answers.
  if revision.startswith("/") or ".." in revision.split("/"):
    return
  reference = folder.parent.parent / "refs" / revision
  # A cache that cannot be written serves its files all the same.
  with contextlib.suppress(OSError, UserError):
    if not reference.exists() or reference.read_text() != commit:
      artifacts.write_text(reference, commit)


def _listed_files(
    repo: str, revision: str | None
) -> tuple[list[str], str | None]:
  """The names of a model's files and its commit.

  Where the hub cannot be reached there are none.
  """
  import huggingface_hub
  from huggingface_hub import errors

  if huggingface_hub.constants.HF_HUB_OFFLINE:
    return [], None
  api = huggingface_hub.HfApi()
  try:
    # Not `list_repo_files`, which tries for half a minute, aloud.
    info = api.model_info(repo, revision=revision, timeout=_SECONDS)
    return [file.rfilename for file in info.siblings or []], info.sha
  except (
      errors.HFValidationError,
      errors.RepositoryNotFoundError,
      errors.RevisionNotFoundError,
  ):
    raise
  except Exception as e:  # Of requests, httpx or its successor, by version.
    if _cached_folder(repo, revision) is None:
      raise
    print(
        f"{repo}: the hub cannot be reached ({_first_line(e)}); using the copy"
        " in its cache",
        file=sys.stderr,
    )
    return [], None


def _cached_folder(repo: str, revision: str | None) -> str | None:
  import huggingface_hub
  from huggingface_hub import errors

  try:
    return huggingface_hub.snapshot_download(
        repo,
        revision=revision,
        allow_patterns=[CONFIG],
        local_files_only=True,
    )
  except errors.LocalEntryNotFoundError:
    return None


def _wanted(name: str, found: list[str]) -> list[str]:
  """The files to fetch, of those that the model has."""
  if not found:
    return []
  small = [file for file in _SMALL_FILES if file in found]
  for weights in (files.SAFETENSORS, files.TORCH):
    index = weights + files.INDEX
    if weights in found:
      chosen = [weights]
    elif index in found:
      stem, _, suffix = weights.rpartition(".")
      shard = re.compile(f"{re.escape(stem)}{_SHARD}\\.{suffix}")
      chosen = [index, *(file for file in found if shard.fullmatch(file))]
    else:
      continue
    if weights == files.TORCH and importlib.util.find_spec("torch") is None:
      raise UserError(
          f"{name}: has no safetensors, and reading {weights} needs torch,"
          " which is not installed: pip install 'xprompt-jax[torch]'"
      )
    return small + chosen
  raise UserError(
      f"{name}: the hub's model has no weights that can be read, expected"
      f" {files.SAFETENSORS} or {files.TORCH}, or shards of one of them"
  )


def _checked(name: str, folder: pathlib.Path) -> pathlib.Path:
  names = (files.SAFETENSORS, files.TORCH)
  weights = [n + suffix for n in names for suffix in ("", files.INDEX)]
  has_weights = any((folder / file).exists() for file in weights)
  if not (folder / CONFIG).exists() or not has_weights:
    missing = "weights" if (folder / CONFIG).exists() else CONFIG
    raise UserError(
        f"{name}: found {folder} in the hub's cache without {missing}; fetch"
        " the rest where there is a network, with HF_HUB_OFFLINE unset"
    )
  return folder


@contextlib.contextmanager
def _one_line(name: str, repo: str, revision: str) -> Iterator[None]:
  """Turns whatever goes wrong at the hub into one line.

  The order matters: an error of the hub may be a kind of another.
  """
  try:
    from huggingface_hub import constants, errors
  except ImportError as e:
    raise UserError(
        f"{name}: a hub id needs huggingface_hub, which cannot be imported"
        f" ({e}): pip install huggingface_hub, or give a folder"
    ) from e
  cache = constants.HF_HUB_CACHE
  try:
    yield
  except UserError:
    raise
  except errors.HFValidationError as e:
    message = "is no hub id, expected OWNER/NAME or NAME, and perhaps @REVISION"
    raise UserError(f"{name}: {message}") from e
  except errors.GatedRepoError as e:
    raise UserError(
        f"{name}: the model is gated; accept its terms at"
        f" {constants.ENDPOINT}/{repo} and log in with `hf auth login`"
    ) from e
  except errors.RepositoryNotFoundError as e:
    raise UserError(
        f"{name}: the hub has no such model, or it is private; expected an id"
        " such as google/t5-large-lm-adapt, or a login with `hf auth login`"
    ) from e
  except errors.RevisionNotFoundError as e:
    raise UserError(
        f"{name}: the hub's {repo} has no revision {revision or 'main'!r},"
        " expected a branch, a tag or a commit"
    ) from e
  except errors.LocalEntryNotFoundError as e:
    if constants.HF_HUB_OFFLINE:
      raise UserError(
          f"{name}: is not in the hub's cache {cache} and HF_HUB_OFFLINE is"
          " set; unset it, or fetch the model there where there is a network"
      ) from e
    raise UserError(_unreachable(name, cache, e)) from e
  except Exception as e:  # Of requests, httpx or its successor, by version.
    raise UserError(_unreachable(name, cache, e)) from e


def _unreachable(name: str, cache: Any, error: Exception) -> str:
  return (
      f"{name}: is not in the hub's cache {cache} and cannot be fetched"
      f" ({_first_line(error)}); try again where there is a network, or give a"
      " folder"
  )


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0].strip() if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
  """Progress bars of huggingface_hub are for terminals."""
  from huggingface_hub import utils

  silenced = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
  with warnings.catch_warnings():
    # HF_HUB_DISABLE_PROGRESS_BARS=0 has the last word, and warns.
    warnings.simplefilter("ignore")
    if silenced:
      utils.disable_progress_bars()
  try:
    yield
  finally:
    if silenced:
      utils.enable_progress_bars()
