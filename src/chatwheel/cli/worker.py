"""`chatwheel worker`: does fine-tuning jobs. `chatwheel serve` starts one by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwheel.cli.options import Home


def command(
    home: Home = None,
    beside: Annotated[
        bool, typer.Option("--beside", hidden=True, help="End with the process that started it.")
    ] = False,
) -> None:
    """Do fine-tuning jobs until interrupted; any number of workers may share a database and a home."""
    import logging
    import signal
    from types import FrameType

    from chatwheel.cli.options import opened
    from chatwheel.jobs.beside import end_with_parent
    from chatwheel.jobs.fine_tuning.worker import Worker
    from chatwheel.settings import Settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with opened(home) as database:
        worker = Worker(Settings.load(home), database)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            worker.stop.set()

        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, stop)
        if beside:
            end_with_parent(worker.stop)
        worker.run()
