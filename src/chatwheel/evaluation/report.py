"""report.html: a run on one page that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chatwheel.atomic import write_atomically


def write_report(path: Path, name: str, data: dict[str, Any]) -> None:
    """Writes the page."""
    write_atomically(path, [f"<h1>{name}</h1><pre>{json.dumps(data)[:1000]}</pre>".encode()])
