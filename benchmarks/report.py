"""Rows as a table and as JSON."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure: `vs_peer` and `vs_limit` are how many times better it is than theirs (of bytes and counts: the quotient)."""

    work: str
    case: str
    subject: str
    value: float
    unit: str
    vs_peer: float | None = None
    vs_limit: float | None = None
    noisy: bool = False


def show(rows: Sequence[Row]) -> None:
    """Print one work's rows: a line for each case and subject, what else was measured of it at the end."""
    table = Table(title=rows[0].work, title_justify="left")
    for name in ("case", "subject", "value", "unit", "x peer", "x limit", "and"):
        table.add_column(name, justify="right" if name in ("value", "x peer", "x limit") else "left")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.subject), []).append(row)
    before = ""
    for (case, subject), [first, *others] in groups.items():
        if before and case != before:
            table.add_section()
        more = [f"{figure(row.value)} {row.unit}{_ratios(row)}" for row in others]
        more += ["noisy"] if first.noisy else []
        table.add_row(
            case if case != before else "",
            subject,
            figure(first.value),
            first.unit,
            ratio(first.vs_peer),
            ratio(first.vs_limit),
            ", ".join(more),
        )
        before = case
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _ratios(row: Row) -> str:
    found = [ratio(one) for one in (row.vs_peer, row.vs_limit) if one is not None]
    return f" ({' / '.join(f'{one}x' for one in found)})" if found else ""


def figure(value: float) -> str:
    """A figure with three digits that mean something."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:,.1f}" if size >= 10 else f"{value:,.3f}"


def ratio(value: float | None) -> str:
    """A ratio, empty where there is none."""
    return "" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def write_json(path: Path, rows: Sequence[Row], durability: Any, options: Sequence[str]) -> None:
    """Write all rows with what they were measured on."""
    about = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["./dev", "bench", *options],
        "commit": _commit(),
        "machine": {"system": platform.platform(), "cpu": _cpu(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("headwater", "eventsourcing", "apsw", "msgspec")}
        | {"sqlite": apsw.sqlite_lib_version()},
        "durability": durability,
    }
    path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
