"""What happened in a simulated universe, line by line: virtual time, who, what; a fault that struck is marked with `!`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headwater.channel import Publication
from headwater.database import Answer, Collision, WriteSet
from headwater.store import Committed


class Trace:
    """Keeps the lines where `told`; otherwise it costs nothing but a call."""

    def __init__(self, time: Callable[[], float], *, told: bool) -> None:
        self.told = told
        self.lines: list[str] = []
        self._time = time

    def note(self, who: str, what: str) -> None:
        """Somebody did something."""
        if self.told:
            self.lines.append(f"{self._time():12.6f}  {who:<9} {what}")

    def commit(self, who: str, writes: Sequence[WriteSet], answers: Sequence[Answer]) -> None:
        """A commit came to the database."""
        if self.told:
            for write, answer in zip(writes, answers, strict=True):
                self.note(who, f"commits {'; '.join(parts_of(write)) or 'nothing'} -> {outcome_of(answer)}")

    def publish(self, who: str, publications: Sequence[Publication]) -> None:
        """Messages came to the channel."""
        if self.told and publications:
            self.note(who, f"publishes {', '.join(map(place_of, publications))}")


def parts_of(write: WriteSet) -> list[str]:
    """A write set in words."""
    appends = [f"{draft.type} to {one.stream}" for one in write.appends for draft in one.drafts]
    marks = [f"mark {one.consumer} {one.stream} {one.expect}→{one.version}" for one in write.marks]
    places = [f"checkpoint {one.name} {one.expect}→{one.position}" for one in write.checkpoints]
    holds = [f"hold {one.consumer} {one.key}@{one.message.version} ({one.reason})" for one in write.holds]
    frees = [f"release {one.consumer} {one.stream}@{one.version}" for one in write.releases]
    timers = [f"timer {one.name} {one.key}" for one in write.timers]
    cancels = [f"cancel {one.name} {one.key}" for one in write.cancels]
    sagas = [f"saga {one.saga} {one.key} v{one.expect + 1}{' ended' if one.ended else ''}" for one in write.sagas]
    rows = [f"rows {one.table.name} {[row[0] for row in one.rows]}" for one in write.upserts]
    note = [f"note {write.note.feed} {len(write.note.messages)}"] if write.note else []
    fence = [f"epoch {write.fence.lease} {write.fence.epoch}"] if write.fence else []
    return [*appends, *marks, *places, *holds, *frees, *timers, *cancels, *sagas, *rows, *note, *fence]


def outcome_of(answer: Answer) -> str:
    """An answer in words."""
    if isinstance(answer, Committed):
        return f"{'known' if answer.repeated else 'position'} {answer.position}"
    return answer.what if isinstance(answer, Collision) else type(answer).__name__


def place_of(one: Publication) -> str:
    """A publication in words."""
    late = f" in {one.delay:.2f} s" if one.delay else ""
    alone = f" for {one.group}" if one.group else ""
    return f"{one.headers.get('subject', one.key)}@{one.headers.get('streamversion', '?')}{late}{alone}"
