"""Asks for /health again and again from a process of its own, which nobody else's work delays:
`python -m chatwheel.benchmarks.health_probe HOST PORT`. When its standard input ends, it prints the seconds that each
answer took, as JSON."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

INTERVAL_SECONDS = 0.01


def main() -> None:
    """Probes until nobody listens any more."""
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=60)
    seconds: list[float] = []
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        began = time.perf_counter()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = answer.read()
        seconds.append(time.perf_counter() - began)
        if answer.status != 200 or json.loads(body)["status"] != "ok":
            raise SystemExit(f"/health said {answer.status}: {body[:200]!r}")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
