"""Fault points: the named moments at which it matters most that a process may end.

Each does nothing. A rig takes hold of one from outside, by putting another function in the place of `point`, and kills,
stops or delays the process there.
"""

from __future__ import annotations

from typing import Final

POINTS: Final[dict[str, str]] = {
    # a command, transaction 1
    "handling.decided": "Handling._commit: decided on a warm aggregate, nothing is submitted",
    "deciding.read": "Deciding._try: what a decision rests on is read, nothing is decided",
    "deciding.decided": "Deciding._try: decided, nothing is written",
    "deciding.committed": "Deciding._commit: the answer is there, the caller has none",
    "handling.committed": "Handling._commit: on disk, the caller does not know",
    # the loop of a source and its consumers, transaction 3
    "feed.fetched": "Feed._fetch: a batch is in hand and not noted",
    "feed.noted": "Feed._note: what may be in hand is noted",
    "feed.buried": "Feed._bury: what could not be decoded is a dead letter",
    "feed.parted": "Feed._run_carefully: a part of a batch in question is settled",
    "feed.settled": "Feed._run: every consumer has custody, nothing is acknowledged",
    "feed.acknowledged": "Feed._run: the batch is acknowledged",
    "consumer.ran": "Consumer._run: the messages have run, their effects are not committed",
    "consumer.ran_inside": "Consumer._run_inside: the messages have run within an open transaction",
    "consumer.wrote_inside": "Consumer._run_inside: the write set is written, the transaction is open",
    "consumer.fell": "Consumer.run: a message fell alone, that is not committed",
    "consumer.committed": "Consumer._answered: effects, marks and held messages are on disk",
    "projection.folded": "ProjectionWorker.run: a batch is folded in memory",
    "projection.folded_inline": "inline_fold: folded within the transaction of the events",
    "saga.reacted": "SagaWorker.run: instances have evolved and reacted in memory",
    "once.intended": "Once.__call__: the intent is on disk, nothing is called",
    "once.not_done": "Once.__call__: the other side did nothing, the intent stands",
    "once.called": "Once.__call__: the effect has happened, its outcome is not stored",
    "once.stored": "Once.__call__: the outcome is on disk",
    "retry.due": "Retrying._run_lane: a held key has its turn, nothing is noted",
    "retry.noted": "Retrying._run_lane: the lane is noted and not run",
    "retry.settled": "Retrying._run_lane: the lane is settled",
    "retry.charging": "Retrying._recall: a message that ran alone is about to be charged with a crash",
    "retry.charged": "Retrying._recall: it is charged",
    # the relay, hand-off 1
    "relay.placed": "Relay._find_place: relays before this one are fenced off",
    "relay.publishing": "Relay._publish: messages are read and not published",
    "relay.published": "Relay._publish: published, together with the place in the log or before it is kept",
    "relay.holding": "Relay._hold: what the channel refuses is not held yet",
    "relay.held": "Relay._hold: it is held",
    "relay.republished": "Relay._publish_held: a held message is published and still held",
    "relay.released": "Relay._publish_held: it is held no more",
    # timers, repair, rebuilds, people
    "timer.due": "Scheduler.step: timers are due and not in the log",
    "timer.fired": "Scheduler.step: they are in the log, and timers no more",
    "repair.asking": "Asking.step: what is missing has waited long enough, nobody is asked",
    "repair.asked": "Asking.step: its producer is asked",
    "repair.answering": "Answering.step: a request is read",
    "repair.answered": "Answering.step: it is answered and not acknowledged",
    "repair.acknowledged": "Answering.step: it is acknowledged",
    "rebuild.begun": "rebuild: a new table is made",
    "rebuild.folded": "_Building.fold_up_to: a page is folded in memory",
    "rebuild.moved": "_Building.fold_up_to: its rows and checkpoint are on disk",
    "rebuild.swapping": "rebuild: the new table has caught up with the live one",
    "rebuild.swapped": "rebuild: it has taken its place",
    "operations.settling": "_commit_all: messages are about to be redriven or discarded",
    "operations.settled": "_commit_all: they are",
    # within the SQLite adapters
    "sqlite.begun": "Writer._transact: a group commit has begun",
    "sqlite.written": "Writer._transact: all is written, COMMIT comes next",
    "sqlite.committed": "Writer._transact: COMMIT is done, the lock is held",
    "sqlite.unlocked": "Writer._transact: other processes may write, nobody is answered",
    "sqlite.returned": "Writer._carry_out: a transaction comes back from its borrower, COMMIT comes next",
    "sqlite.committed_loan": "Writer._carry_out: it is committed, the borrower is not told",
    # within the PostgreSQL database
    "postgres.committing": "Writer._transact: what stands is judged under locks, it goes to the server with COMMIT",
    "postgres.committed": "Writer._transact: it is committed, nobody is answered",
    "postgres.returned": "Desk._commit: a transaction comes back from its borrower, COMMIT comes next",
    "postgres.committed_loan": "Desk._commit: it is committed, the borrower is not told",
    # within both
    "migration.begun": "_apply: a transaction for the tables is open",
    "migration.applied": "_apply: all tables are made, COMMIT comes next",
    "migration.committed": "_apply and PostgresDatabase._prepared: they are there",
    "lease.taking": "LeaseHolder._take and _taking: a lease is taken in an open transaction",
    "lease.taken": "LeaseHolder.acquire: it is taken, its holder does not know",
    "lease.renewing": "LeaseHolder._renew: leases are renewed, COMMIT comes next",
    "lease.renewed": "LeaseHolder._renew: they are",
    "lease.releasing": "LeaseHolder.release: a lease is given up, COMMIT comes next",
    "channel.publishing": "Publish.apply: messages and the place of their relay are written, not committed",
    "channel.moving": "MoveDue.apply and _moving: delayed messages stand among the others as well",
    "channel.joining": "Join.apply: the cursors of a group are written, not committed",
    "channel.taking": "Take.apply and Seat._moving and Member._given: partitions are taken, not committed",
    "channel.taken": "SqliteSubscription._take and PostgresSubscription._keep and Member._given: they are taken",
    "channel.settling": "Settle.apply: cursors are moved, not committed",
    "channel.settled": "ChannelFile._submit and ChannelDesk.flush and Member._written: cursors are on disk",
    "channel.trimming": "Trim.apply: old messages are deleted, not committed",
}
"""Every point, with the function that it stands in, one an adapter, and what has happened by then."""


def point(name: str) -> None:
    """A moment called `name`, one of `POINTS`."""
