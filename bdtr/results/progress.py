"""Progress of long work on the terminal."""

from __future__ import annotations

import contextlib

from bdtr.results.arguments import truth

__all__ = ["progress_bar"]


@contextlib.contextmanager
def progress_bar(show: bool, what: str):
    """A progress bar, as a callback of (done, total)."""
    truth("progress", show)
    if not show:
        yield None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
