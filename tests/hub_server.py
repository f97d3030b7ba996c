"""A Hugging Face hub on this machine, with what `hub.py` asks of it."""

from collections.abc import Iterator
import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What is larger than a few bytes counts as a large file, kept under its sha256.
_SMALL = {"config.json", "README.md", "tokenizer_config.json"}


def blob_name(name: str, content: bytes) -> str:
  """The name of a file in the cache: git's sha1, or sha256 of a large one."""
  if name in _SMALL:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
  return hashlib.sha256(content).hexdigest()


def cache_folder(
    cache: pathlib.Path, repo: str, contents: dict[str, bytes]
) -> pathlib.Path:
  """Writes a model into a cache, as the hub's own program lays it out.

  Returns:
    The snapshot's folder.
  """
  folder = cache / f"models--{repo.replace('/', '--')}"
  snapshot = folder / "snapshots" / COMMIT
  for part in (folder / "refs", folder / "blobs", snapshot):
    part.mkdir(parents=True)
  (folder / "refs" / "main").write_text(COMMIT)
  for name, content in contents.items():
    blob = folder / "blobs" / blob_name(name, content)
    blob.write_bytes(content)
    (snapshot / name).symlink_to(f"../../blobs/{blob.name}")
  return snapshot


class Hub:
  """Which models there are, and which files were asked for."""

  def __init__(self, models: dict[str, dict[str, bytes]]):
    self.models = models
    self.gated: set[str] = set()
    self.fetched: list[str] = []
    # Branches and commits, of whatever was asked.
    self.revisions: list[str] = []
    self.url = ""

  def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a path."""
    parts = urllib.parse.unquote(path.split("?")[0]).strip("/").split("/")
    is_api = parts[:2] == ["api", "models"]
    parts = parts[2:] if is_api else parts
    repo, rest = "/".join(parts[:2]), parts[2:]
    if repo not in self.models:
      return 404, {"X-Error-Code": "RepoNotFound"}, b""
    self.revisions += rest[1:2]
    if len(rest) > 1 and rest[1] not in ("main", COMMIT):
      return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if is_api:
      return 200, {}, json.dumps(self._api(repo, rest)).encode()
    if repo in self.gated:
      return 403, {"X-Error-Code": "GatedRepo"}, b""
    return self._file(repo, rest[2])

  def _api(self, repo: str, rest: list[str]) -> object:
    files = self.models[repo]
    if rest[:1] == ["tree"]:
      return [
          {"type": "file", "path": n, "size": len(c), "oid": blob_name(n, c)}
          for n, c in files.items()
      ]
    return {
        "id": repo,
        "sha": COMMIT,
        "private": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": name} for name in files],
    }

  def _file(self, repo: str, name: str) -> tuple[int, dict[str, str], bytes]:
    content = self.models[repo][name]
    headers = {
        "ETag": f'"{blob_name(name, content)}"',
        "X-Repo-Commit": COMMIT,
        "Accept-Ranges": "bytes",
    }
    return 200, headers, content


@contextlib.contextmanager
def serving(models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
  """Serves models, name -> file -> content, at `hub.url`."""
  hub = Hub(models)

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_GET(self):
      status, headers, body = hub.answer(self.path)
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name, value)
      self.send_header("Content-Length", str(len(body)))
      self.end_headers()
      if self.command == "GET":
        self.wfile.write(body)
        if "/resolve/" in self.path:
          hub.fetched.append(self.path.rpartition("/")[2])

    do_HEAD = do_GET

    def log_message(self, format, *args):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  hub.url = f"http://127.0.0.1:{server.server_port}"
  # Asked every 10 ms whether it shall end.
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield hub
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
