"""A Google bucket on this machine: the part of its JSON API that is used.

A folder's files are the bucket's objects. TensorStore is pointed at it by
TENSORSTORE_GCS_HTTP_URL, which it reads once: in a process of its own.
"""

from collections.abc import Iterator
import contextlib
import http.server
import json
import pathlib
import threading
import urllib.parse

_OBJECTS = "/storage/v1/b/{bucket}/o"


class _Handler(http.server.BaseHTTPRequestHandler):
  server: "_Server"

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    objects = _OBJECTS.format(bucket=self.server.bucket)
    # What TensorStore adds against caches is not of interest.
    self.server.requests.append(urllib.parse.unquote(url.path))
    if url.path == objects:
      self._answer(200, json.dumps(self._listing(query)).encode())
    elif not url.path.startswith(f"{objects}/"):
      # Another bucket, or the service that hands out credentials.
      self._answer(404, b"")
    elif self.server.status != 200:
      self._answer(self.server.status, b"")
    else:
      name = urllib.parse.unquote(url.path.removeprefix(f"{objects}/"))
      file = self.server.folder / name
      if file.is_file():
        self._answer(200, file.read_bytes())
      else:
        self._answer(404, b"")

  def _listing(self, query: dict[str, str]) -> dict:
    folder = self.server.folder
    names = [
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
    ]
    start, end = query.get("startOffset", ""), query.get("endOffset", "\x7f")
    # The service's own order, page by page.
    names = sorted(n for n in names if start <= n < end)
    first = int(query.get("pageToken", 0))
    page = {"items": [{"name": n} for n in names[first : first + 2]]}
    if first + 2 < len(names):
      page["nextPageToken"] = str(first + 2)
    return page

  def _answer(self, status: int, body: bytes) -> None:
    self.send_response(status)
    self.send_header("Content-Length", str(len(body)))
    self.send_header("x-goog-generation", "1")
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args):
    """Says nothing."""


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def __init__(self, folder: pathlib.Path, bucket: str, status: int):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.folder = folder
    self.bucket = bucket
    self.status = status
    self.requests: list[str] = []


@contextlib.contextmanager
def serving(
    folder: pathlib.Path, bucket: str, status: int = 200
) -> Iterator[tuple[dict[str, str], list[str]]]:
  """Serves a folder as a bucket.

  Args:
    folder: its files are the objects.
    bucket: the bucket's name.
    status: with which each object is answered; others than 200 are failures.

  Yields:
    The environment with which TensorStore finds the bucket, without
    credentials, and the paths asked for so far.
  """
  server = _Server(folder, bucket, status)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  address = f"127.0.0.1:{server.server_port}"
  environment = {
      "TENSORSTORE_GCS_HTTP_URL": f"http://{address}",
      "GCE_METADATA_ROOT": address,
      "GOOGLE_APPLICATION_CREDENTIALS": "",
      "CLOUDSDK_CONFIG": str(folder / "no-credentials"),
      "NO_PROXY": "127.0.0.1",
  }
  try:
    yield environment, server.requests
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
