"""Rows as a table and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write all rows with what they were measured on."""
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False))


def as_data(about: Mapping[str, Any], rows: Sequence[Row], durability: Any) -> dict[str, Any]:
    """The rows of a run, and what they were measured on."""
    return {"about": {**about, "durability": durability}, "rows": [asdict(row) for row in rows]}
