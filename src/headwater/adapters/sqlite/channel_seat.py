"""A member's seat in a group: locked files show who is there and who has which partition; a dead process frees its own at once.

`<file>.leases/group.<group>/` holds a file a member, locked for as long as it lives, and a file a partition.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote

from headwater.adapters.sqlite.lock import FileLock


class Seat:
    """A member among those of its group; `owned` are the partitions that it has locked."""

    def __init__(self, file: Path, group: str, member: str, partitions: int) -> None:
        folder = quote(group, safe="").replace(".", "%2E")
        self._folder = file.with_name(f"{file.name}.leases") / f"group.{folder}"
        self._name = f"member.{quote(member, safe='')[:150]}.{secrets.token_hex(4)}"
        self._partitions = partitions
        self._presence: FileLock | None = None
        self._locks: dict[int, FileLock] = {}

    @property
    def owned(self) -> set[int]:
        """The partitions that this member has."""
        return set(self._locks)

    def sit(self) -> None:
        """Be seen by the other members."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self._name
        while self._presence is None:
            lock = FileLock(path)
            if lock.take() and path.exists():
                self._presence = lock
            else:  # another member looked whether its owner is alive
                lock.close()

    def there(self) -> bool:
        """Whether the other members still see it: somebody may have removed the files."""
        return (self._folder / self._name).exists()

    def share(self) -> set[int]:
        """The partitions that are this member's fair share of those there are."""
        members = sorted(path.name for path in self._folder.glob("member.*") if self._lives(path))
        rank = members.index(self._name) if self._name in members else 0
        return set(range(rank, self._partitions, max(len(members), 1)))

    def take(self, partition: int) -> bool:
        """Lock a partition if it is free; whether it is ours."""
        lock = FileLock(self._folder / f"partition.{partition}")
        if not lock.take():
            lock.close()
            return False
        self._locks[partition] = lock
        return True

    def give(self, partition: int) -> None:
        """Free a partition."""
        if lock := self._locks.pop(partition, None):
            lock.close()

    def leave(self) -> None:
        """Free everything and be seen no more."""
        for partition in self.owned:
            self.give(partition)
        if self._presence is not None:
            (self._folder / self._name).unlink(missing_ok=True)
            self._presence.close()
            self._presence = None

    def _lives(self, path: Path) -> bool:
        if path.name == self._name:
            return True
        try:
            lock = FileLock(path)
        except OSError:
            return False
        dead = lock.take()
        if dead:
            path.unlink(missing_ok=True)
        lock.close()
        return not dead
