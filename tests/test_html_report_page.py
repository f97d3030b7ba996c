"""The page of `t5x report`: whole, well-formed, and made of itself alone."""

import base64
import html.parser
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import command_line, report_files

ROOT = pathlib.Path(__file__).parent.parent
_VOID = {"meta", "img", "br", "link", "hr", "input"}
# What would ask the network for something.
_ADDRESSES = ("src", "href", "srcset", "action", "data", "poster")

_WITHOUT_JAX = """
import sys
from xprompt_jax import main
status = main.main(sys.argv[1:])
heavy = {"jax", "jaxlib", "flax", "tensorflow", "seqio", "gin"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.exit(status)
"""


class _Page(html.parser.HTMLParser):
  """Elements in order, and those that are open."""

  def __init__(self, text):
    super().__init__()
    self.open = []
    self.found = []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, tag

  def tags(self, name):
    """The attributes of all elements of a name."""
    return [attributes for tag, attributes in self.found if tag == name]


def _write_tickets(run):
  ticket = {"kept_pieces": 4, "validation": {"score": 50.0}}
  lines = [
      {"seed": 0, "token_ratio": None, "piece_ratio": None, **ticket},
      {"seed": 0, "token_ratio": 0.5, "piece_ratio": None, **ticket},
      {"seed": 0, "token_ratio": 0.5, "piece_ratio": 0.5, **ticket},
      {"seed": 0, "token_ratio": 0.5, "importance": "random", **ticket},
  ]
  (run / "tickets.jsonl").write_text(
      "".join(json.dumps(line) + "\n" for line in lines)
  )


def _write_stages(run):
  """Scores of tokens and pieces, and the masks of the final prompts."""
  stage = {"rows": [{"seed": 0}, {"seed": 1}]}
  for granularity in ("token", "piece"):
    folder = run / f"score_{granularity}"
    report_files.write_json(folder / "result.json", stage)
    report_files.write_arrays(
        folder / "scores.safetensors",
        token_scores=np.array([[4.0, 0.5], [3.0, 2.0]]),
        piece_scores=np.arange(1.0, 9.0).reshape(2, 2, 2),
    )
  report_files.write_json(run / "rewind/result.json", stage)
  report_files.write_arrays(
      run / "rewind/prompt.safetensors",
      token_mask=np.array([[1, 0], [1, 1]], np.float32),
      piece_mask=np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], np.float32),
  )


def _write_analyses(run):
  """Masked tokens, nearest words, and ratios that no training chose."""
  report_files.write_json(
      run / "masking/result.json",
      {
          "rows": [
              {
                  "seed": 0,
                  "order": order,
                  "draw": 0,
                  "num_masked": count,
                  "test": {"score": 50.0 - count},
              }
              for order in ("importance", "random")
              for count in (0, 1)
          ]
      },
  )
  report_files.write_json(
      run / "nearest_words.json",
      {
          "rows": [
              {
                  "seed": 0,
                  "tokens": [
                      {"position": 0, "kept": True, "words": [["<s>|", 0.5]]}
                  ],
              }
          ]
      },
  )
  report_files.write_json(
      run / "auto_ratio/result.json",
      {
          "rows": [
              {
                  "seed": 0,
                  "granularity": "token",
                  "rule": "scores",
                  "ratio": 0.5,
                  "validation": {"score": 50.0},
              }
          ]
      },
  )


@pytest.fixture(scope="module")
def rich_run(tmp_path_factory):
  """A run that has every file a report reads."""
  run = tmp_path_factory.mktemp("runs") / "<rte> & more"
  report_files.write_run(
      run,
      methods={
          "no_prompt": (report_files.row(None, 1),),
          "prompt_tuning": (2, 2),
          "xprompt": (3, 3),
          "reversed": (1, 0),
      },
  )
  _write_tickets(run)
  _write_stages(run)
  _write_analyses(run)
  return run


@pytest.fixture(scope="module")
def report(rich_run, tmp_path_factory):
  """The folder of its report."""
  output = tmp_path_factory.mktemp("out") / "report"
  assert command_line.run("report", rich_run, f"--output={output}") == 0
  return output


def test_every_section_is_there(report):
  page = _Page((report / "report.html").read_text())
  assert [attributes["id"] for attributes in page.tags("section")] == [
      "scores",
      "parameters",
      "variants",
      "masking",
      "kept_share",
      "importance",
      "saliency",
      "nearest_words",
      "auto_ratio",
      "costs",
  ]
  links = [attributes["href"] for attributes in page.tags("a")]
  assert links == [f"#{a['id']}" for a in page.tags("section")]


def test_the_page_needs_no_other_file(report):
  text = (report / "report.html").read_text()
  page = _Page(text)
  for tag, attributes in page.found:
    for name in _ADDRESSES:
      address = attributes.get(name, "#")
      assert address.startswith(("#", "data:image/svg+xml;base64,")), tag
  assert not {tag for tag, _ in page.found} & {"script", "link", "iframe"}
  assert "@import" not in text and "url(" not in text
  for image in page.tags("img"):
    svg = base64.b64decode(image["src"].partition(",")[2]).decode()
    addresses = re.findall(r'href="([^"]*)"', svg)
    assert "<svg" in svg
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in addresses)


def test_people_who_do_not_see_it_can_read_it(report):
  page = _Page((report / "report.html").read_text())
  assert page.tags("html") == [{"lang": "en"}]
  headings = [
      tag for tag, _ in page.found if tag[0] == "h" and tag[1:].isdigit()
  ]
  assert headings == ["h1"] + ["h2"] * 10
  images = page.tags("img")
  assert len(images) == 6
  assert all(len(image["alt"]) > 30 for image in images)
  assert len(page.tags("caption")) == len(page.tags("table")) == 7
  assert all("scope" in attributes for attributes in page.tags("th"))
  ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
  assert len(set(ids)) == len(ids)


def test_numbers_stand_at_the_right(report):
  text = (report / "report.html").read_text()
  assert '<td class="number">75.00 (6/8)</td>' in text
  assert "<td>no clear difference</td>" in text


def test_names_are_text(report):
  text = (report / "report.html").read_text()
  assert "&lt;rte&gt; &amp; more" in text and "<rte>" not in text
  assert "&lt;s&gt;| (0.50)" in text
  assert "<s>\\| (0.50)" in (report / "report.md").read_text()


def test_pictures_and_tables_as_files(report):
  pictures = sorted(path.name for path in (report / "figures").iterdir())
  assert pictures == [
      "importance_pieces_rte.png",
      "importance_tokens_rte.png",
      "kept_share_rte.png",
      "masking_rte.png",
      "saliency_rte.png",
      "variants_rte.png",
  ]
  for name in pictures:
    assert (report / "figures" / name).read_bytes()[1:4] == b"PNG"
  tables = sorted(path.name for path in (report / "tables").iterdir())
  assert tables == [
      "auto_ratio_rte.csv",
      "costs.csv",
      "nearest_words_rte_0.csv",
      "parameters.csv",
      "scores.csv",
      "scores_rte.csv",
      "scores_test.csv",
  ]
  markdown = (report / "report.md").read_text()
  for name in pictures:
    assert f"](figures/{name})" in markdown
  for name in tables:
    assert f"(tables/{name})" in markdown
  assert "| XPrompt | 75.00 (6/8) |" in markdown


def test_the_same_files_give_the_same_report(report, rich_run, tmp_path):
  assert command_line.run("report", rich_run, f"--output={tmp_path}") == 0
  for path in report.rglob("*.*"):
    assert (tmp_path / path.relative_to(report)).read_bytes() == (
        path.read_bytes()
    ), path


def test_neither_jax_nor_tensorflow_is_loaded(rich_run, tmp_path):
  command = [sys.executable, "-c", _WITHOUT_JAX, "report", str(rich_run)]
  done = subprocess.run(
      [*command, f"--output={tmp_path}"],
      capture_output=True,
      text=True,
      check=False,
      cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == (
      f"{tmp_path}/report.html: 10 sections, 7 tables, 6 figures\n"
  )


def test_a_gin_file_is_refused(rich_run, capsys):
  assert command_line.refused(
      capsys, "report", "--gin_file=a.gin", rich_run
  ) == (
      "--gin_file=a.gin: found a gin file, expected none: report reads finished"
      " runs"
  )


def test_an_output_that_is_a_file_is_refused(rich_run, tmp_path, capsys):
  path = tmp_path / "taken"
  path.write_text("")
  found = command_line.refused(capsys, "report", rich_run, f"--output={path}")
  assert found == f"{path}/tables/scores.csv: cannot write: Not a directory"
