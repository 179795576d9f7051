"""A real server that speaks S3, on the loopback interface, for tests of cohorts in object stores."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from types import TracebackType

__all__ = ["S3Server"]

_COLOURS = r"(?:\x1b\[\d+m)*"
_LINE = re.compile(rf'"{_COLOURS}(GET|PUT|HEAD|POST|DELETE) (\S+) HTTP/[\d.]+{_COLOURS}" (\d+)')
_PATIENCE_S = 60.0
# moto's own command looks for the service of each request, which takes as long as the request itself.
_SERVE = """
import gc, sys
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept
gc.freeze()
run_simple("127.0.0.1", int(sys.argv[1]), create_backend_app("s3"), threaded=True)
"""


class S3Server:
    """A process of moto, which checks conditions of writes as S3 does; it ends with the with-block.

    Parameters
    ----------
    folder
        For the log of requests.

    Attributes
    ----------
    environment
        Variables with which clients find the server.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "requests.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def __enter__(self) -> "S3Server":
        command = [sys.executable, "-c", _SERVE, self.address.rpartition(":")[2]]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, "AWS_ACCESS_KEY_ID": "test"}
            )
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/", timeout=5).close()
                return self
            except (urllib.error.URLError, OSError):
                if time.monotonic() > end or self._process.poll() is not None:
                    self._process.kill()
                    raise
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def bucket(self) -> str:
        """Make a bucket and return its URL, ``s3://...``."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        return f"s3://{name}"

    def requests(self) -> list[tuple[str, str, int]]:
        """Return method, path and status of all requests so far."""
        return [(method, path, int(code)) for method, path, code in _LINE.findall(self._log.read_text())]
