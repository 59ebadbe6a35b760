"""A disk as a power cut leaves it: what SQLite wrote is recorded in order, and images are made of any moment of it.

Only what was synced before the cut is sure to be there. Of the rest each write is there, or not, or torn at a sector.
Files that were made or deleted are so once anything was synced after it (a journal of metadata keeps their order).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

SECTOR = 512
BASE = "unix"
NAME = "headwater-power"
Mode = Literal["none", "prefix", "subset", "torn"]
MODES: tuple[Mode, ...] = ("none", "prefix", "subset", "torn")


class Op(NamedTuple):
    """`write` (place, data), `truncate` (place: the size), `sync`, `create`, `delete`, or `mark` (data: any)."""

    kind: str
    name: str = ""
    file: int = 0
    place: int = 0
    data: Any = b""


class Trace:
    """All that was done to files, in order, with marks of ours between."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def mark(self, what: object) -> None:
        """Note that something was answered to somebody."""
        self.ops.append(Op("mark", data=what))

    def opened(self, path: str, *, new: bool) -> int:
        """The identity of a file: another one after it was deleted and made again."""
        with self._lock:
            if new or path not in self._files:
                self._files[path] = len(self.ops) + 1
                self.ops.append(Op("create", Path(path).name, self._files[path]))
            return self._files[path]

    def deleted(self, path: str) -> None:
        """Note that a file is gone."""
        self.ops.append(Op("delete", Path(path).name))


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], file: int, trace: Trace) -> None:
        super().__init__(BASE, name, flags)
        self.file = file
        self.trace = trace

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        self.trace.ops.append(Op("write", "", self.file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self.trace.ops.append(Op("truncate", "", self.file, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self.trace.ops.append(Op("sync", "", self.file))


class _Vfs(apsw.VFS):
    def __init__(self, trace: Trace) -> None:
        super().__init__(NAME, BASE, makedefault=True)
        self.trace = trace

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        path = name.filename() if hasattr(name, "filename") else str(name)
        new = not Path(path).exists()
        opened = _File(name, flags, 0, self.trace)
        opened.file = self.trace.opened(path, new=new)
        return opened

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        super().xDelete(filename, syncdir)
        self.trace.deleted(filename)


@contextmanager
def recording() -> Iterator[Trace]:
    """Record all that this process does to SQLite files inside the block."""
    trace = Trace()
    vfs = _Vfs(trace)
    try:
        yield trace
    finally:
        vfs.unregister()


class Disk:
    """What is on disk for sure at a place in a trace, and what is on its way there."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.data: dict[int, bytearray] = {}
        self.marks: list[Any] = []
        self._renames: list[Op] = []
        self._pending: dict[int, list[Op]] = {}

    def advance(self, ops: Sequence[Op]) -> None:
        """Do these."""
        for op in ops:
            if op.kind == "mark":
                self.marks.append(op.data)
            elif op.kind == "sync":
                self._synced(op.file)
            elif op.kind in ("create", "delete"):
                self._renames.append(op)
            else:
                self._pending.setdefault(op.file, []).append(op)

    def image(self, mode: Mode, chance: random.Random) -> tuple[dict[str, bytes], bool]:
        """The files after a power cut now, and whether it took anything that was written."""
        renames = self._renames[: _so_many(self._renames, mode, chance)]
        names = dict(self.names)
        _rename(names, renames)
        harmed = len(renames) < len(self._renames)
        files: dict[str, bytes] = {}
        for name, file in names.items():
            kept = _kept(self._pending.get(file, []), mode, chance)
            harmed = harmed or kept != self._pending.get(file, [])
            content = bytearray(self.data.get(file, b""))
            for op in kept:
                _do(content, op)
            files[name] = bytes(content)
        return files, harmed

    def _synced(self, file: int) -> None:
        _rename(self.names, self._renames)
        self._renames = []
        content = self.data.setdefault(file, bytearray())
        for op in self._pending.pop(file, []):
            _do(content, op)


def _so_many(ops: Sequence[Op], mode: Mode, chance: random.Random) -> int:
    return 0 if mode == "none" else chance.randint(0, len(ops))


def _rename(names: dict[str, int], ops: Sequence[Op]) -> None:
    for op in ops:
        if op.kind == "create":
            names[op.name] = op.file
        else:
            names.pop(op.name, None)


def _kept(ops: Sequence[Op], mode: Mode, chance: random.Random) -> list[Op]:
    """What of the writes that were not synced has come to the disk."""
    match mode:
        case "none":
            return []
        case "prefix":
            return list(ops[: chance.randint(0, len(ops))])
        case "subset":
            return [op for op in ops if chance.random() < 0.5]
        case "torn":
            upto = chance.randint(0, max(len(ops) - 1, 0))
            return [*ops[:upto], *(_torn(op, chance) for op in ops[upto : upto + 1])]


def _torn(op: Op, chance: random.Random) -> Op:
    if op.kind != "write":
        return op
    sectors = len(op.data) // SECTOR
    return op._replace(data=op.data[: SECTOR * chance.randint(0, sectors)])


def _do(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del content[op.place :]
        return
    if len(content) < op.place:
        content.extend(bytes(op.place - len(content)))
    content[op.place : op.place + len(op.data)] = op.data
