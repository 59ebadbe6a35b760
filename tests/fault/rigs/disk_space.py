"""A small disk that fills up and is freed: a tmpfs where one may be mounted, else a file system of SQLite that says FULL."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import apsw

SIZE = 12 << 20
GROWN = 240 << 20


class Space(Protocol):
    """A folder with little space; `fills_up`: whether what is written into it fills it."""

    folder: Path
    fills_up: bool

    def fill(self) -> None:
        """Take every byte that is left."""
        ...

    def free(self) -> None:
        """Give space again."""
        ...


class Mounted:
    """A tmpfs."""

    fills_up = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Write a file of all that is left."""
        descriptor = os.open(self.folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    os.write(descriptor, bytes(size))
        os.close(descriptor)

    def free(self) -> None:
        """Delete the file, and make the disk larger."""
        (self.folder / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", f"remount,size={GROWN}", self.folder], check=True, capture_output=True)


class Pretended(apsw.VFS):
    """Answers FULL to each write while it is filled."""

    fills_up = False

    def __init__(self, folder: Path) -> None:
        super().__init__("headwater-full", "unix", makedefault=True)
        self.folder = folder
        self.full = False

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _Pretending("unix", name, flags, self)

    def fill(self) -> None:
        """Refuse from now on."""
        self.full = True

    def free(self) -> None:
        """Take writes again."""
        self.full = False


class _Pretending(apsw.VFSFile):
    def __init__(self, base: str, name: Any, flags: list[int], space: Pretended) -> None:
        super().__init__(base, name, flags)
        self.space = space

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self.space.full:
            raise apsw.FullError("no space is left")
        super().xWrite(data, offset)


@contextmanager
def small_disk(*, mounted: bool = True) -> Iterator[Space]:
    """A small disk for as long as the block; without `mounted`, or where nothing may be mounted, a pretended one."""
    with tempfile.TemporaryDirectory(prefix="headwater-disk-") as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place]
        if mounted and os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            try:
                yield Mounted(Path(place))
            finally:
                subprocess.run(["umount", "-l", place], check=False)
        else:
            pretended = Pretended(Path(place))
            try:
                yield pretended
            finally:
                pretended.unregister()
