"""Ids of the Hugging Face hub: its cache, offline, and a hub of our own."""

import hashlib
import importlib.util
import os
import subprocess
import sys

from huggingface_hub import constants
import pytest

from tests import hub_server
from tests import huggingface_folders as folders
from tests.huggingface_folders import CONFIG, refused
from xprompt_jax.weights import hub, huggingface

REPO = "someone/tiny-t5"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """An empty cache, and no hub."""
  folder = tmp_path / "cache"
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  hub.resolve.cache_clear()
  return folder


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
  """The files of a tiny model."""
  folder = folders.write(tmp_path_factory.mktemp("model"))
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def online(monkeypatch):
  """Serves models and lets `hub.py` find them."""
  with hub_server.serving({}) as server:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The one is made of the other when huggingface_hub is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    template = template.replace(constants.ENDPOINT, server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    yield server


def test_from_the_cache(cache, contents):
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  assert hub.resolve(REPO) == snapshot
  assert hub.resolve(f"{REPO}@{hub_server.COMMIT}") == snapshot
  assert huggingface.read_config(snapshot) == CONFIG
  checkpoint = huggingface.open_folder(snapshot, CONFIG)
  assert checkpoint["decoder/logits_dense/kernel"].shape == (4, 10)


def test_the_environment_decides(cache, contents):
  # As a user has it: nothing set from within Python.
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  code = (
      "import sys\n"
      "from xprompt_jax.weights import hub\n"
      "assert 'huggingface_hub' not in sys.modules\n"
      f"print(hub.resolve({REPO!r}))\n"
  )
  environment = {
      **os.environ,
      "HF_HUB_CACHE": str(cache),
      "HF_HUB_OFFLINE": "1",
  }
  done = subprocess.run(
      [sys.executable, "-c", code],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout == f"{snapshot}\n"
  assert done.stderr == ""


def test_offline_and_not_in_the_cache(cache, contents):
  hub_server.cache_folder(cache, REPO, contents)
  for name in ("someone/other", "t5-small", f"{REPO}@v2"):
    assert refused(hub.resolve, name) == (
        f"{name}: is not in the hub's cache {cache} and HF_HUB_OFFLINE is set;"
        " unset it, or fetch the model there where there is a network"
    )


@pytest.mark.parametrize("name", ["a//b", "a/b/c", "..", "-x", "a b", ""])
def test_what_is_no_id(name):
  assert refused(hub.resolve, name) == (
      f"{name}: is no hub id, expected OWNER/NAME or NAME, and perhaps"
      " @REVISION"
  )


@pytest.mark.parametrize(
    ("kept", "missing"),
    [("config.json", "weights"), ("model.safetensors", "config.json")],
)
def test_a_cache_that_has_half_of_it(kept, missing, cache, contents):
  part = {kept: contents[kept]}
  snapshot = hub_server.cache_folder(cache, REPO, part)
  assert refused(hub.resolve, REPO) == (
      f"{REPO}: found {snapshot} in the hub's cache without {missing}; fetch"
      " the rest where there is a network, with HF_HUB_OFFLINE unset"
  )


@pytest.mark.parametrize(
    ("file", "digest"),
    [("model.safetensors", "sha256"), ("config.json", "sha1")],
)
def test_a_flipped_bit_in_the_cache(file, digest, cache, contents):
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  blob = (snapshot / file).resolve()
  content = bytearray(blob.read_bytes())
  content[-2] ^= 1
  blob.write_bytes(content)
  function = (
      huggingface.read_config
      if file == "config.json"
      else lambda folder: huggingface.open_folder(folder, CONFIG)
  )
  message = refused(function, snapshot)
  assert message.startswith(f"{snapshot / file}: contents have {digest} ")
  assert message.endswith(
      f", expected {blob.name[:12]}: the file in the cache is damaged; remove"
      " it and fetch it again"
  )


@pytest.mark.parametrize("has_head", [True, False])
def test_a_blob_is_hashed_once(has_head, cache, tmp_path, monkeypatch):
  found = folders.tensors()
  if not has_head:
    del found["lm_head.weight"]
  folder = folders.write(
      tmp_path / "model",
      found,
      model_type="umt5",
      architectures=["UMT5ForConditionalGeneration"],
      tie_word_embeddings=True,
      transformers_version="5.23.0",
  )
  contents = {path.name: path.read_bytes() for path in folder.iterdir()}
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  hashed = []
  sha256 = hashlib.sha256
  monkeypatch.setattr(
      hashlib, "sha256", lambda *args: (hashed.append(1), sha256(*args))[1]
  )
  config = huggingface.read_config(snapshot)
  assert config.logits_via_embedding is not has_head
  # The names were enough.
  assert len(hashed) == (1 if has_head else 0)
  for _ in range(2):
    assert huggingface.read_config(snapshot) == config
    huggingface.open_folder(snapshot, config)
  assert len(hashed) == 1
  # What is written anew is hashed anew.
  blob = (snapshot / "model.safetensors").resolve()
  content = bytearray(blob.read_bytes())
  content[-1] ^= 1
  blob.write_bytes(content)
  os.utime(blob, ns=(0, 10**18))
  assert "the file in the cache is damaged" in refused(
      huggingface.open_folder, snapshot, config
  )
  assert len(hashed) == 2


def test_a_copy_of_the_cache_without_links(cache, contents):
  # As Windows has it, and `cp -rL`.
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  for file in snapshot.iterdir():
    file.unlink()
    file.write_bytes(contents[file.name])
  assert hub.resolve(REPO) == snapshot
  assert huggingface.read_config(snapshot) == CONFIG
  assert len(huggingface.open_folder(snapshot, CONFIG)) == 29


def test_a_snapshot_with_a_link_to_another_model(cache, contents):
  hub_server.cache_folder(cache, "someone/other", contents)
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  file = snapshot / "model.safetensors"
  other = cache / "models--someone--other" / "blobs" / file.resolve().name
  file.unlink()
  file.symlink_to(other)
  assert refused(huggingface.open_folder, snapshot, CONFIG) == (
      f"{file}: points outside its folder, to {other}; expected the file itself,"
      " or a link into the hub's cache as a snapshot there has it"
  )


def test_fetched_once(online, cache, contents, monkeypatch):
  online.models[REPO] = {**contents, "README.md": b"#", "tf_model.h5": b"x"}
  folder = hub.resolve(REPO)
  assert folder.is_relative_to(cache)
  assert sorted(online.fetched) == ["config.json", "model.safetensors"]
  assert {p.name: p.read_bytes() for p in folder.iterdir()} == contents
  # The blob's name is what its content is compared with.
  huggingface.open_folder(folder, CONFIG)
  assert hub.resolve(f"{REPO}@main") == folder
  hub.resolve.cache_clear()
  assert hub.resolve(REPO) == folder
  hub.resolve.cache_clear()
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  assert hub.resolve(REPO) == folder
  assert len(online.fetched) == 2


@pytest.mark.parametrize("revision", [None, "main"])
def test_what_was_listed_is_what_is_fetched(online, cache, contents, revision):
  # The branch may move on in between.
  online.models[REPO] = contents
  folder = hub.resolve(f"{REPO}@{revision}" if revision else REPO)
  assert folder.name == hub_server.COMMIT
  asked = online.revisions[1:] if revision else online.revisions
  assert set(asked) == {hub_server.COMMIT}
  reference = cache / "models--someone--tiny-t5" / "refs" / "main"
  assert reference.read_text() == hub_server.COMMIT


def test_fetched_without_a_word(online, contents, capfd):
  online.models[REPO] = contents
  hub.resolve(REPO)
  assert capfd.readouterr() == ("", "")


def test_one_format_is_fetched(online, contents):
  small = {"config.json": contents["config.json"], "spiece.model": b"pieces"}
  online.models[REPO] = {
      **small,
      "model.safetensors.index.json": b"{}",
      "model-00001-of-00002.safetensors": b"1",
      "model-00002-of-00002.safetensors": b"2",
      "model.fp16.safetensors": b"3",
      "pytorch_model.bin": b"4",
      "tokenizer_config.json": b"{}",
      "onnx/model.safetensors": b"5",
  }
  hub.resolve(REPO)
  assert sorted(online.fetched) == [
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
      "spiece.model",
      "tokenizer_config.json",
  ]


def test_torch_files_are_fetched_where_torch_is(online, contents, monkeypatch):
  online.models[REPO] = {
      "config.json": contents["config.json"],
      "pytorch_model.bin": b"weights",
  }
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  assert refused(hub.resolve, REPO) == (
      f"{REPO}: has no safetensors, and reading pytorch_model.bin needs torch,"
      " which is not installed: pip install 'xprompt-jax[torch]'"
  )
  assert online.fetched == []
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  hub.resolve(REPO)
  assert sorted(online.fetched) == ["config.json", "pytorch_model.bin"]


def test_no_weights_at_the_hub(online):
  online.models[REPO] = {"config.json": b"{}", "tf_model.h5": b"x"}
  assert refused(hub.resolve, REPO) == (
      f"{REPO}: the hub's model has no weights that can be read, expected"
      " model.safetensors or pytorch_model.bin, or shards of one of them"
  )


def test_no_such_model_revision_or_access(online, contents):
  assert refused(hub.resolve, "someone/other") == (
      "someone/other: the hub has no such model, or it is private; expected an"
      " id such as google/t5-large-lm-adapt, or a login with `hf auth login`"
  )
  online.models[REPO] = contents
  assert refused(hub.resolve, f"{REPO}@v2") == (
      f"{REPO}@v2: the hub's {REPO} has no revision 'v2', expected a branch, a"
      " tag or a commit"
  )
  online.gated.add(REPO)
  assert refused(hub.resolve, REPO) == (
      f"{REPO}: the model is gated; accept its terms at {online.url}/{REPO} and"
      " log in with `hf auth login`"
  )


def test_no_network(cache, contents, monkeypatch, capfd):
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
  monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
  message = refused(hub.resolve, REPO)
  assert message.startswith(
      f"{REPO}: is not in the hub's cache {cache} and cannot be fetched ("
  )
  assert message.endswith(
      "); try again where there is a network, or give a folder"
  )
  snapshot = hub_server.cache_folder(cache, REPO, contents)
  assert hub.resolve(REPO) == snapshot
  said = capfd.readouterr().err
  assert said.startswith(f"{REPO}: the hub cannot be reached (")
  assert said.endswith("); using the copy in its cache\n")
  assert said.count("\n") == 1
