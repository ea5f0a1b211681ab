"""A server over fake models as a process of its own, which can be killed: `python -m tests.server.fake_server HOME
PORT`. What it left running when it was killed before is settled by the next one after a second."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tests.server.live import make_app

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def process(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it answers; ended with the block, if it has not been killed. Its words are in `server.log`."""
    with (home / "server.log").open("ab") as log:
        command = [sys.executable, "-m", "tests.server.fake_server", str(home), str(port)]
        running = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not _answers(port):
                assert running.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
            yield running
        finally:
            running.kill()
            running.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    """Serves until it is killed."""
    app, _, _ = make_app(Path(sys.argv[1]), alive_seconds=1.0)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
