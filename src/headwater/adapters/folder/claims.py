"""Claims as files of a folder: one each, named by its hash, whole and on disk before its name stands there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from headwater.claims import name_of
from headwater.errors import ChannelError, ConfigurationError

FRESH: Final = 3600.0
"""Seconds for which a file need not be written again to count as new."""
THREADS: Final = 4
"""Of our own: a folder that hangs takes no more than these with it."""

Result = TypeVar("Result")


class FolderClaims:
    """The claims in a folder; files that are older than anybody needs may be deleted, by a day at least."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def from_url(cls, url: str) -> FolderClaims:
        """The claims of `file:///folder`, which must be there: one that is not mounted is not made. Raises ConfigurationError."""
        parts = urlsplit(url)
        folder = Path(unquote(parts.path))
        if parts.netloc or parts.query or not folder.is_absolute():
            raise ConfigurationError(f"{url!r} names no folder for claims: write file:///srv/claims")
        if not folder.is_dir():
            raise ConfigurationError(f"there is no folder {folder} for claims: make it, or mount it, for all services")
        return cls(folder)

    async def leave(self, body: bytes) -> str:
        """Keep a body."""
        try:
            return await self._apart(lambda: self._leave(body))
        except OSError as error:
            raise ChannelError(f"a claim cannot be left in {self.folder}: {error}") from error

    async def fetch(self, name: str) -> bytes | None:
        """What was left under a name."""
        try:
            return await self._apart((self.folder / name).read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ChannelError(f"the claim {name} cannot be read in {self.folder}: {error}") from error

    async def close(self) -> None:
        """Let the threads go, without waiting for one that hangs."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _apart(self, work: Callable[[], Result]) -> Result:
        self._threads = self._threads or ThreadPoolExecutor(THREADS, "headwater-claims")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _leave(self, body: bytes) -> str:
        path = self.folder / name_of(body)
        if not _is_fresh(path, body):
            self._write(path, body)
        _flush(self.folder)  # another process may have named it a moment ago
        return path.as_uri()

    def _write(self, path: Path, body: bytes) -> None:
        new = self.folder / f".{uuid4().hex}"
        try:
            with new.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _is_fresh(path: Path, body: bytes) -> bool:
    try:
        return time.time() - path.stat().st_mtime < FRESH and path.read_bytes() == body
    except FileNotFoundError:
        return False


def _flush(folder: Path) -> None:
    """See to it that the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
