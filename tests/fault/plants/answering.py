"""Bugs of deciding and answering: stale states, command keys that are not kept, and reads that do not wait."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import msgspec

from headwater.adapters.memory import MemoryDatabase
from headwater.adapters.postgres.writer import Writer as PostgresWriter
from headwater.app.app import App
from headwater.database import Failed, WriteSet
from headwater.errors import DatabaseError, Unknown
from headwater.handling import Handling
from headwater.store import ANY, Append, CommandKey, Committed
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

JUDGE: Any = importlib.import_module("headwater.database.judge")
CONTRACT = "tests/contract/test_database_memory.py::TestMemoryDatabase::"
HANDLING = "tests/flow/test_handling.py::"


@planted(Promise.ATOMIC, Suite(f"{CONTRACT}test_expect_is_exact"), everywhere=True)
def expected_version_not_checked() -> Patch:
    """An append stands whatever version its stream is at."""
    broken = JUDGE._log_broken

    def blind(write: WriteSet, facts: Any) -> str:
        appends = [Append(one.stream, ANY, one.drafts) for one in write.appends]
        return str(broken(msgspec.structs.replace(write, appends=appends, after=None), facts))

    return mock.patch.object(JUDGE, "_log_broken", blind)


@planted(
    Promise.ATOMIC,
    Suite(f"{HANDLING}test_the_cache_is_checked_by_version_when_another_process_has_written"),
)
def warm_aggregate_not_checked_by_version() -> Patch:
    """What is decided on a cached aggregate is appended wherever its stream has come to."""
    propose = Handling.propose

    def anywhere(self: Any, *arguments: Any) -> Any:
        return msgspec.structs.replace(propose(self, *arguments), expect=ANY)

    return mock.patch.object(Handling, "propose", anywhere)


@planted(Promise.THREE_VALUED, Suite(f"{HANDLING}test_a_rejection_never_rests_on_events_that_are_not_committed"))
def rejection_on_a_stale_state() -> Patch:
    """A refusal is answered without looking whether what it rests on is on disk."""

    async def always(*_: Any) -> bool:
        return True

    return mock.patch.object(Handling, "_on_disk", always)


@planted(
    Promise.THREE_VALUED,
    Suite(f"{CONTRACT}test_a_key_that_is_known_is_answered_as_the_first_time"),
    Rig("simulate", "twice"),
    everywhere=True,
)
def command_key_not_looked_up() -> Patch:
    """A command that comes again under its key is done again."""
    return mock.patch.object(JUDGE, "_repeated", lambda key, facts: None)


@planted(Promise.THREE_VALUED, Suite(f"{CONTRACT}test_a_key_for_another_command_is_an_error"), everywhere=True)
def command_key_for_any_command() -> Patch:
    """Another command under a known key is answered as the first was."""

    def repeated(key: CommandKey, facts: Any) -> Committed | None:
        settled = facts.keys.get((key.tenant, key.key))
        return Committed(settled.position, settled.version, repeated=True) if settled else None

    return mock.patch.object(JUDGE, "_repeated", repeated)


@planted(
    Promise.THREE_VALUED,
    Suite(f"{HANDLING}test_an_unknown_outcome_is_a_value_with_the_key_to_ask_by"),
    Rig("simulate", "twice"),
)
def retry_after_unknown() -> Patch:
    """A command whose outcome is not known is decided again as a new one."""
    commit = Handling._commit

    async def again(self: Any, proposal: Any, warm: Any, key: Any) -> Any:
        answer = await commit(self, proposal, warm, key)
        if not isinstance(answer, Unknown):
            return answer
        [answer] = await self.database.commit([WriteSet(appends=[Append(proposal.stream, ANY, proposal.drafts)])])
        return answer

    return mock.patch.object(Handling, "_commit", again)


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{HANDLING}test_what_was_decided_on_a_fallen_decision_falls_though_its_version_is_there"),
)
def decided_on_a_fallen_decision() -> Patch:
    """A decision stands though the one that it was made after has fallen, if only the version is right."""
    return mock.patch.object(JUDGE, "_unfounded", lambda write, facts: "")


@planted(
    Promise.READ_YOUR_WRITES, Suite("tests/flow/test_read_models.py::test_a_read_model_that_does_not_come_is_stale")
)
def read_that_does_not_wait() -> Patch:
    """A query with a receipt is answered from what the read model is at."""

    async def passed(*_: Any) -> None:
        pass

    return mock.patch.object(App, "_passed", passed)


@planted(
    Promise.READ_YOUR_WRITES,
    Suite("tests/flow/test_read_models.py::test_a_read_after_an_answer_that_the_model_holds_is_stale"),
)
def read_past_a_held_message() -> Patch:
    """A read model that holds the very message that was asked for is taken as current."""

    async def holds(*_: Any) -> bool:
        return False

    return mock.patch.object(App, "_holds", holds)


@planted(Promise.ERASURE, Suite(f"{CONTRACT}test_old_keys_are_forgotten_and_counted"))
def command_keys_kept_for_ever() -> Patch:
    """Command keys that are to be forgotten stay."""

    async def forget(*_: Any) -> int:
        return 0

    return mock.patch.object(MemoryDatabase, "forget_keys", forget)


@planted(Promise.THREE_VALUED, Rig("cut", "doubled|failed and there", slow=True, arguments=("", 40)))
def cut_commit_repeated() -> Patch:
    """A group whose connection was lost at COMMIT is written again on the next one, without a look at what became of it."""

    async def nothing_of_it(*_: Any) -> None:
        return None

    return mock.patch.object(PostgresWriter, "_ask", nothing_of_it)


@planted(Promise.THREE_VALUED, Rig("cut", "failed and (are )?there", slow=True, arguments=("", 40)))
def cut_commit_taken_for_failed() -> Patch:
    """A group whose connection was lost at COMMIT is answered as if it had not been committed."""

    async def failed(self: Any, commit: Any) -> list[Failed]:
        return [Failed(DatabaseError("the connection was lost")) for _ in commit.writes]

    return mock.patch.object(PostgresWriter, "_ask", failed)
