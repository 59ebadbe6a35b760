"""The live view of a run on a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.live import Live as Drawing
from rich.progress_bar import ProgressBar
from rich.table import Table

from .routes import SERVICES
from .view import Scene


class Live:
    """A drawing that is made again at each look."""

    def __init__(self) -> None:
        self._drawing = Drawing(auto_refresh=False, transient=True)
        self._drawing.start()

    def show(self, scene: Scene) -> None:
        now = scene.snapshot
        head = (
            f"[bold]{scene.orders:,} orders[/] · placed {now.placed:,} · [green]shipped {now.shipped:,}[/] · "
            f"cancelled {now.cancelled:,} · kills {scene.kills} · {scene.seconds:.0f} s"
        )
        bar = ProgressBar(total=scene.orders, completed=now.shipped + now.cancelled, width=60)
        notes = (f"[dim]{note}[/]" for note in scene.notes[-3:])
        self._drawing.update(Group(head, bar, "", _consumers(scene), *notes), refresh=True)

    def close(self) -> None:
        self._drawing.stop()


def _consumers(scene: Scene) -> Table:
    """Who is up, and how far each consumer is behind."""
    table = Table(box=None, pad_edge=False)
    for name in ("service", "", "consumer", "lag"):
        table.add_column(name, justify="right" if name == "lag" else "left", min_width=8)
    for service in SERVICES:
        first = (service, "[green]up[/]" if scene.up[service] else "[red]down[/]")
        for consumer, lag in scene.snapshot.lag.items():
            home, _, name = consumer.partition(".")
            if home == service:
                table.add_row(*first, name, f"[yellow]{lag:,}[/]" if lag else "0")
                first = ("", "")
    return table
