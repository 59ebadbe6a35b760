"""What commands print: tables on a terminal, plain columns elsewhere, or one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

LAST: Final = 30
"""Characters that the last column of a table has at least, if it needs them."""


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def print_json(document: Any) -> None:
    """One document on one line."""
    sys.stdout.write(msgspec.json.encode(document, enc_hook=str).decode() + "\n")


def print_payload(data: Any) -> None:
    """Plain values, indented; a text as it is, but for what a terminal would take as a command."""
    if isinstance(data, str):
        sys.stdout.write("".join(one if one == "\n" else safe(one) for one in data) + "\n")
    else:
        text = msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()
        sys.stdout.write("".join(one if one == "\n" else safe(one) for one in text) + "\n")


def print_line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(safe(text) + "\n")


def safe(value: Any) -> str:
    """A value as text that a terminal shows and does not obey."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Rows under column names; numbers in the columns of `right`."""
    texts = [[safe(value) for value in row] for row in rows]
    if is_terminal():
        _print_rich(columns, texts, right)
    else:
        _print_plain(columns, texts, right)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(len(text) for text in column) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows) if any(columns) else rows:
        cells = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(columns, row, widths, strict=True)
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    """A table whose cells stay whole, so that they can be copied, but for the last column, which is folded."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for name in columns[:-1]:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="crop")
    widest = max([len(columns[-1]), *(len(row[-1]) for row in rows)])
    justify: Literal["left", "right"] = "right" if columns[-1] in right else "left"
    table.add_column(columns[-1], justify=justify, overflow="fold", min_width=min(widest, LAST))
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    console = Console()
    needed = Measurement.get(console, console.options.update(width=10_000), table).minimum
    console.width = max(console.width, needed)
    console.print(table, soft_wrap=False, crop=False)


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values, a line each; what is empty is left out."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        if value not in (None, "", [], {}):
            sys.stdout.write(f"{name.ljust(width)}  {safe(value)}\n")


def unknown(value: Any) -> Any:
    """A value, or a sign that it is not known."""
    return "?" if value is None else value
