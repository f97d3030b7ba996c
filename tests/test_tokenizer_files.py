"""The tokenizer that `t5x import` puts into a Hugging Face folder."""

import json

import pytest

from tests import huggingface_folders, shared_data, vocabulary_files
from xprompt_jax import conversion, vocabularies
from xprompt_jax.types import UserError
from xprompt_jax.weights import tokenizer_files

# What released folders hold; the contents are taken as they are.
RELEASED = {
    "spiece.model": vocabulary_files.bundled(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"tokenizer_class": "T5Tokenizer"}',
    "special_tokens_map.json": b'{"pad_token": "<pad>"}',
    "added_tokens.json": b'{"<x>": 32100}',
}


def converted(source, output, **settings):
  conversion.convert(
      str(source), output, output_format="huggingface", **settings
  )
  return output


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A T5 with room for the ids of every vocabulary, and no tokenizer."""
  tensors = huggingface_folders.tensors()
  for name in ("shared.weight", "lm_head.weight"):
    tensors[name] = tensors[name].repeat(3300, axis=0)
  return huggingface_folders.write(
      tmp_path_factory.mktemp("source"), tensors, vocab_size=33000
  )


def test_the_files_of_a_folder_are_kept(tmp_path, capsys):
  source = huggingface_folders.write(tmp_path / "source")
  for name, content in RELEASED.items():
    (source / name).write_bytes(content)
  # Another vocabulary is for sources without one.
  output = converted(source, tmp_path / "out", vocabulary="bytes")
  for name, content in RELEASED.items():
    assert (output / name).read_bytes() == content
  printed = capsys.readouterr()
  summary = json.loads(printed.out.splitlines()[-1])
  assert summary["vocabulary"] == str(source / "spiece.model")
  assert summary["tokenizer"] == sorted(RELEASED)
  assert printed.err == ""


def test_t5x_gets_no_copy_but_is_told_where_it_is(tmp_path, capsys):
  source = huggingface_folders.write(tmp_path / "source")
  # Nobody reads them.
  (source / "spiece.model").write_bytes(b"")
  (source / "tokenizer.json").write_bytes(b"")
  conversion.convert(str(source), tmp_path / "out", output_format="t5x")
  summary = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert summary["vocabulary"] == str(source / "spiece.model")
  assert "tokenizer" not in summary
  assert [p.name for p in (tmp_path / "out").iterdir()] == ["checkpoint_0"]


@pytest.mark.parametrize(
    ("vocabulary", "extra_ids"),
    [
        ("gs://b/v.model", None),
        ("nowhere.model", None),
        ("bytes", 125),  # More ids than the network has.
        (None, None),
    ],
)
def test_t5x_is_told_a_vocabulary_that_is_not_fetched_or_read(
    tmp_path, capsys, monkeypatch, vocabulary, extra_ids
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  fetched = []
  monkeypatch.setattr(vocabularies.urllib.request, "urlopen", fetched.append)
  source = huggingface_folders.write(tmp_path / "source")
  conversion.convert(
      str(source),
      tmp_path / "out",
      output_format="t5x",
      vocabulary=vocabulary,
      extra_ids=extra_ids,
  )
  printed = capsys.readouterr()
  assert json.loads(printed.out.splitlines()[-1])["vocabulary"] == vocabulary
  assert (printed.err, fetched) == ("", [])


@pytest.mark.parametrize(
    ("config", "place"),
    [('{"tokenizer_class": "ByT5Tokenizer"}', "bytes"), ("{", "stated")],
)
def test_the_place_of_a_folders_bytes(tmp_path, config, place):
  (tmp_path / "tokenizer_config.json").write_text(config)
  assert tokenizer_files.place(str(tmp_path), "stated") == place


@pytest.mark.parametrize(
    ("own", "stated", "vocab_size", "written"),
    [
        (0, None, 356, 100),
        (0, 32, 288, 32),
        (0, 0, 384, 0),
        # As in mT5.
        (4, None, 384, 0),
        (4, 0, 260, 0),
    ],
)
def test_a_folder_with_a_vocabulary_alone(
    tmp_path, own, stated, vocab_size, written
):
  content = vocabulary_files.with_sentinels(own)
  (tmp_path / "spiece.model").write_bytes(content)
  found = tokenizer_files.find(str(tmp_path), None, stated, vocab_size)
  assert found.vocabulary == str(tmp_path / "spiece.model")
  assert found.contents["spiece.model"] == content
  assert json.loads(found.contents["tokenizer_config.json"]) == {
      "tokenizer_class": "T5Tokenizer",
      "pad_token": "<pad>",
      "eos_token": "</s>",
      "unk_token": "<unk>",
      "extra_ids": written,
      "legacy": False,
  }


@pytest.mark.parametrize(
    ("own", "stated", "vocab_size", "message"),
    [
        (
            0,
            None,
            288,
            "EXTRA_IDS: found none, expected the number of sentinels: {} has 256"
            " ids, with the usual 100 sentinels more than the model's vocab_size"
            " 288; set it with --gin_file=models/from_checkpoint.gin"
            " --gin.EXTRA_IDS=NUMBER",
        ),
        (
            0,
            33,
            288,
            "vocabulary {}: has 289 ids with 33 extra ids, expected at most the"
            " model's vocab_size 288",
        ),
        (
            4,
            None,
            259,
            "vocabulary {}: has 260 ids with 0 extra ids, expected at most the"
            " model's vocab_size 259",
        ),
        (
            4,
            100,
            384,
            "EXTRA_IDS: found 100, expected 0: {} holds 4 sentinels itself",
        ),
    ],
)
@pytest.mark.parametrize("is_stated", [False, True])
def test_sentinels_that_do_not_fit(
    tmp_path, own, stated, vocab_size, message, is_stated
):
  path = tmp_path / "spiece.model"
  path.write_bytes(vocabulary_files.with_sentinels(own))
  source, vocabulary = str(tmp_path), None
  if is_stated:
    source, vocabulary = "random:0", str(path)
  assert huggingface_folders.refused(
      tokenizer_files.find, source, vocabulary, stated, vocab_size
  ) == message.format(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "spiece.model",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "found a pointer of Git LFS, expected the file itself: run `git lfs"
            " pull`",
        ),
        (
            "spiece.model",
            b"pieces",
            "found 6 bytes, expected a SentencePiece model",
        ),
        ("spiece.model", b"", "found 0 bytes, expected a SentencePiece model"),
        ("tokenizer.json", b"{", "not JSON: Expecting property name"),
        ("tokenizer_config.json", b"", "not JSON: Expecting value"),
        ("added_tokens.json", b"{", "not JSON: Expecting property name"),
    ],
)
def test_a_damaged_file_is_not_copied(tmp_path, name, content, message):
  source = huggingface_folders.write(tmp_path / "source")
  for other, whole in RELEASED.items():
    (source / other).write_bytes(whole)
  (source / name).write_bytes(content)
  found = huggingface_folders.refused(converted, source, tmp_path / "out")
  assert found.startswith(f"{source / name}: {message}")
  assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("extra_ids", "written"), [(None, 125), (3, 3)])
def test_bytes(extra_ids, written):
  found = tokenizer_files.find("random:0", "bytes", extra_ids, 384)
  assert found.vocabulary == "bytes"
  assert list(found.contents) == ["tokenizer_config.json"]
  assert json.loads(found.contents["tokenizer_config.json"]) == {
      "tokenizer_class": "ByT5Tokenizer",
      "pad_token": "<pad>",
      "eos_token": "</s>",
      "unk_token": "<unk>",
      "extra_ids": written,
  }


def test_a_tokenizer_of_bytes_is_found(tmp_path):
  file = tmp_path / "tokenizer_config.json"
  file.write_text('{"tokenizer_class": "ByT5Tokenizer"}')
  found = tokenizer_files.find(str(tmp_path), None, None, 384)
  assert found.vocabulary == "bytes"
  assert found.contents == {file.name: file.read_bytes()}


def test_no_vocabulary_is_said_in_one_line(tmp_path, capsys):
  source = huggingface_folders.write(tmp_path / "source")
  output = converted(source, tmp_path / "out")
  printed = capsys.readouterr()
  summary = json.loads(printed.out.splitlines()[-1])
  assert (summary["vocabulary"], summary["tokenizer"]) == (None, [])
  assert printed.err == (
      f"{output}: has no tokenizer: found none in {source}, expected"
      " spiece.model there, or VOCABULARY to name the vocabulary\n"
  )


def test_a_bucket_out_of_reach_is_said_in_one_line(
    tmp_path, capsys, monkeypatch
):
  def unreachable(url, timeout):
    raise OSError("no route")

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(vocabularies.urllib.request, "urlopen", unreachable)
  assert tokenizer_files.find("random:0", "gs://b/v.model", 100, 384) is None
  message = capsys.readouterr().err
  assert message.startswith("vocabulary gs://b/v.model: cannot be fetched")
  assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("nowhere.model", "vocabulary nowhere.model: cannot be read "),
        ("bytes", "vocabulary bytes: has 259 ids with 0 extra ids, "),
    ],
)
def test_a_vocabulary_that_is_refused_leaves_nothing(
    tmp_path, vocabulary, message
):
  source = huggingface_folders.write(tmp_path / "source")
  with pytest.raises(UserError) as error:
    converted(source, tmp_path / "out", vocabulary=vocabulary)
  assert str(error.value).startswith(message)
  assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
  (tmp_path / "secret").write_text("{}")
  source = huggingface_folders.write(tmp_path / "source")
  (source / "tokenizer.json").symlink_to(tmp_path / "secret")
  with pytest.raises(UserError, match=r"tokenizer\.json: points outside"):
    converted(source, tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "extra_ids", "text", "ids"),
    [
        ("t5", 100, "Hello world, <extra_id_0>", [8774, 296, 6, 32099]),
        (
            "bundled",
            32,
            "anna has a red ball .",
            [14, 58, 10, 118, 17, 6],
        ),
        ("bytes", 125, "aé", [100, 198, 172]),
    ],
)
def test_autotokenizer_gives_the_same_ids(
    torch, tmp_path, source, name, extra_ids, text, ids
):
  transformers = shared_data.quiet_import("transformers")
  vocabulary = shared_data.t5_vocabulary() if name == "t5" else name
  output = converted(
      source, tmp_path / "out", vocabulary=vocabulary, extra_ids=extra_ids
  )
  theirs = transformers.AutoTokenizer.from_pretrained(output)
  ours = vocabularies.load_vocabulary(vocabulary, extra_ids)
  assert ours.encode(text) == ids
  assert theirs(text).input_ids == [*ids, 1]
  assert len(theirs) == ours.vocab_size
  special = (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id)
  assert special == (0, 1, 2)
  # What was written is found and kept by the next conversion.
  again = converted(output, tmp_path / "again")
  for path in output.glob("*"):
    assert (again / path.name).read_bytes() == path.read_bytes()
