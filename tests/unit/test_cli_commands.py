"""Each command once through, in this process, on a SQLite file: what it prints, as JSON and for people."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from headwater import Recorded
from headwater.adapters.sqlite import SqliteDatabase
from headwater.cli import main
from headwater.clock import SystemClock
from headwater.database import WriteSet
from headwater.inbox import Held, Reason, Step

BANK = """
from headwater import Aggregate, App, Command, Event, ReadModel, Rejected, decide, evolve


class Open(Command):
    account_id: str
    owner: str


class Withdraw(Command):
    account_id: str
    cents: int


class Opened(Event):
    account_id: str
    owner: str


class Withdrawn(Event):
    account_id: str
    cents: int


class Account(Aggregate, key="account_id"):
    owner: str = ""
    cents: int = 500

    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.account_id, command.owner)

    @decide
    def withdraw(self, command: Withdraw) -> Withdrawn:
        if command.cents > self.cents:
            raise Rejected("not enough money", available=self.cents)
        return Withdrawn(command.account_id, command.cents)

    @evolve
    def opened(self, event: Opened) -> None:
        self.owner = event.owner

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents


class Statement(ReadModel, key="account_id"):
    cents: int = 0

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents += event.cents


app = App("bank")
app.add(Account, Statement)
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Run a command in a folder with an app: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HEADWATER_APP", "cli_bank_app:app")
    for name in ("HEADWATER_STORE", "HEADWATER_STORE_FILE", "HEADWATER_CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    Path("cli_bank_app.py").write_text(BANK, encoding="utf-8")

    def command(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capsys.readouterr()

    yield command
    sys.modules.pop("cli_bank_app", None)


def document(said: tuple[int, str, str]) -> Any:
    code, out, err = said
    assert (code, err) == (0, "")
    return json.loads(out)


def fill(say: Say) -> None:
    for name, fields in (
        ("Open", '{"account_id": "a", "owner": "Ada"}'),
        ("Withdraw", '{"account_id": "a", "cents": 120}'),
        ("bank.Withdraw", '{"account_id": "b", "cents": 7}'),
    ):
        assert say("command", "send", name, fields)[0] == 0


def hold(*rows: Held, steps: tuple[Step, ...] = ()) -> None:
    async def put() -> None:
        database = SqliteDatabase("bank.db", SystemClock())
        await database.open()
        await database.commit([WriteSet(holds=rows, steps=steps)])
        await database.close()

    asyncio.run(put())


def held(version: int, reason: Reason, stream: str = "x.Y/1") -> Held:
    message = Recorded(1, stream, version, "event", f"m{version}", "x.Done", 1, 0, 1, version - 1, b'{"n":1}', b"{}")
    history = ("then ValueError: no",)
    return Held(
        "bank.mail",
        stream,
        message,
        reason,
        attempts=8,
        cause="ValueError: no",
        fingerprint="f1",
        history=history,
        since=1,
    )


# --- command ---


def test_send_answers_committed_rejected_and_repeated(say: Say) -> None:
    sent = ("command", "send", "Open", '{"account_id": "a", "owner": "Ada"}', "--key", "k1")
    assert document(say(*sent, "--json")) == {
        "key": "k1", "answer": "committed", "position": 1, "version": 1, "repeated": False,
    }  # fmt: skip
    assert say(*sent) == (
        0,
        "committed at position 1, version 1 of its stream (it was done before under this key)\n",
        "",
    )
    reused = say("command", "send", "Open", '{"account_id": "a", "owner": "Bob"}', "--key", "k1")
    assert (reused[0], reused[1]) == (6, "")
    refused = ("command", "send", "Withdraw", '{"account_id": "a", "cents": 9999}')
    assert say(*refused) == (1, "", "error: rejected: not enough money; available=500\n")
    code, out, err = say(*refused, "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["details"] == {"available": 500}


def test_send_reads_a_file_and_takes_the_app_as_an_argument(say: Say) -> None:
    Path("open.json").write_text('{"account_id": "a", "owner": "Ærø"}', encoding="utf-8")
    done = document(
        say(
            "command",
            "send",
            "cli_bank_app:app",
            "Open",
            "-f",
            "open.json",
            "--actor",
            "root",
            "--tenant",
            "acme",
            "--json",
        )
    )
    assert done["position"] == 1
    shown = document(say("events", "show", "1", "--json"))
    assert shown["stream"] == "acme:bank.Account/a"
    assert shown["metadata"] == {"correlation": done["key"], "actor": "root", "tenant": "acme"}
    assert document(say("aggregate", "show", "Account", "a", "--tenant", "acme", "--json"))["state"]["owner"] == "Ærø"


@pytest.mark.parametrize("words", [("Open",), ("Open", "{}", "-f", "open.json"), (), ("Open", "{}", "{}")])
def test_send_wants_one_json(say: Say, words: tuple[str, ...]) -> None:
    Path("open.json").write_text("{}", encoding="utf-8")
    assert say("command", "send", *words)[0] == 2
    assert not Path("bank.db").exists()


# --- events and aggregates ---


def test_events_are_listed_shown_and_followed(say: Say) -> None:
    fill(say)
    listed = document(say("events", "list", "--json"))["events"]
    assert [(one["position"], one["stream"], one["version"], one["type"]) for one in listed] == [
        (1, "bank.Account/a", 1, "bank.Opened"),
        (2, "bank.Account/a", 2, "bank.Withdrawn"),
        (3, "bank.Account/b", 1, "bank.Withdrawn"),
    ]
    assert all("data" not in one for one in listed)
    code, out, err = say(
        "events", "list", "--type", "Withdrawn", "--stream", "bank.Account/a", "--store", "sqlite:///bank.db"
    )
    assert (code, err) == (0, "")
    heading, row = out.splitlines()
    assert heading.split() == ["position", "time", "stream", "version", "type", "id"]
    assert row.split()[0] == "2"
    shown = say("events", "show", "bank.Account/a@2")
    assert '"cents": 120' in shown[1]
    assert document(say("events", "show", listed[1]["id"], "--json"))["data"] == {"account_id": "a", "cents": 120}
    assert say("events", "show", "9")[0] == 5
    followed = say("events", "tail", "--after", "1", "--limit", "2", "--json")[1]
    assert [json.loads(line)["position"] for line in followed.splitlines()] == [2, 3]
    assert "bank.Account/b @1" in say("events", "tail", "--after", "2", "--limit", "1")[1]


def test_an_aggregate_is_shown_at_a_version_with_its_history(say: Say) -> None:
    fill(say)
    now = document(say("aggregate", "show", "bank.Account", "a", "--json"))
    assert (now["version"], now["state"]) == (2, {"owner": "Ada", "cents": 380})
    code, out, _ = say("aggregate", "show", "cli_bank_app:app", "Account", "a", "--version", "1")
    assert code == 0
    assert '"cents": 500' in out
    assert '{"account_id":"a","owner":"Ada"}' in out
    assert "Withdrawn" not in out
    assert say("aggregate", "show", "Account", "a", "--at", "2020-01-01")[0] == 5


# --- consumers and projections ---


def test_consumers_and_read_models_are_listed_and_rebuilt(say: Say) -> None:
    fill(say)
    code, out, err = say("consumers", "--json")
    assert (code, json.loads(out)) == (0, {"consumers": []})
    assert "note: there is no channel at" in err

    async def run_for_a_moment() -> None:
        app = sys.modules["cli_bank_app"].app
        async with app:
            await app.get(sys.modules["cli_bank_app"].Statement, "a", after=await app.send(_withdraw(3)))

    asyncio.run(run_for_a_moment())
    listed = document(say("consumers", "--json"))["consumers"]
    behind = {(one["name"], one["source"]): one["behind"] for one in listed}
    assert behind.keys() == {("bank.relay", "log"), ("bank.commands", "channel"), ("bank.statement", "log")}
    assert behind["bank.statement", "log"] == 0
    assert "bank.statement  read model  log" in say("consumers", "--store", "sqlite:///bank.db")[1]
    [statement] = document(say("projections", "list", "--json"))["projections"]
    assert (statement["name"], statement["position"], statement["rows"]) == ("bank.statement", 4, 2)
    assert "bank.statement  catch-up" in say("projections", "list", "cli_bank_app:app")[1]
    assert document(say("projections", "rebuild", "statement", "--json")) == {
        "projection": "bank.statement",
        "position": 4,
    }
    assert (
        say("projections", "rebuild", "cli_bank_app:app", "Statement")[1]
        == "bank.statement is rebuilt up to position 4\n"
    )
    assert say("projections", "rebuild", "nothing")[0] == 5


def _withdraw(cents: int) -> Any:
    return sys.modules["cli_bank_app"].Withdraw("a", cents)


# --- dead letters ---


def test_dead_letters_are_listed_shown_redriven_and_discarded(say: Say) -> None:
    fill(say)
    hold(held(1, Reason.DEAD), held(2, Reason.BEHIND), held(1, Reason.DEAD, "x.Y/2"))
    listed = document(say("dead-letters", "list", "--json"))
    assert [one["id"] for one in listed["held"]] == ["bank.mail:x.Y/1@1", "bank.mail:x.Y/2@1"]
    assert listed["more"] is False
    assert all("data" not in one for one in listed["held"])
    assert document(say("dead-letters", "list", "--limit", "1", "--json"))["more"] is True
    assert len(document(say("dead-letters", "list", "--all", "--json"))["held"]) == 3
    assert len(document(say("dead-letters", "list", "--reason", "behind", "--json"))["held"]) == 1
    assert "ValueError: no" in say("dead-letters", "list", "--consumer", "bank.mail")[1]
    shown = say("dead-letters", "show", "bank.mail:x.Y/1@1")[1]
    assert '"n": 1' in shown
    assert "then ValueError: no" in shown
    assert document(say("dead-letters", "redrive", "bank.mail:x.Y/1@1", "--json")) == {
        "redriven": ["bank.mail:x.Y/1@1"], "left": {},
    }  # fmt: skip
    assert say("dead-letters", "redrive", "--fingerprint", "f1") == (0, "1 redriven\n", "")
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@2")[0] == 1
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@9")[0] == 5
    assert say("dead-letters", "discard", "bank.mail:x.Y/1@1")[0] == 2
    assert say("dead-letters", "discard", "bank.mail:x.Y/1@1", "--yes") == (0, "1 discarded\n", "")
    assert say("dead-letters", "show", "nonsense")[0] == 2


def test_of_several_ids_those_that_can_be_changed_are(say: Say) -> None:
    fill(say)
    hold(held(1, Reason.DEAD), held(1, Reason.DEAD, "x.Y/2"))
    code, out, err = say("dead-letters", "redrive", "bank.mail:x.Y/1@1", "bank.mail:x.Y/9@9", "bank.mail:x.Y/2@1")
    assert (code, out) == (1, "2 redriven, 1 left\n")
    assert err.startswith("left bank.mail:x.Y/9@9: ")
    assert err.count("\n") == 1


def test_an_uncertain_one_needs_a_word(say: Say) -> None:
    fill(say)
    hold(held(1, Reason.UNCERTAIN), held(1, Reason.UNCERTAIN, "x.Y/2"), steps=(Step("bank.mail", "m1", "fee"),))
    code, out, err = say("dead-letters", "redrive", "--consumer", "bank.mail")
    assert (code, out) == (1, "0 redriven, 2 left\n")
    assert err.count("say --done OUTCOME_JSON or --not-done") == 2
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@1")[0] == 1
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@1", "--done", "{")[0] == 2
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@1", "--not-done")[0] == 2
    assert "fee: begun, outcome not known" in say("dead-letters", "show", "bank.mail:x.Y/1@1")[1]
    assert say("dead-letters", "redrive", "bank.mail:x.Y/1@1", "--done", '{"id": 7}')[0] == 0
    assert 'fee: done, {"id":7}' in say("dead-letters", "show", "bank.mail:x.Y/1@1")[1]
    assert say("dead-letters", "redrive", "bank.mail:x.Y/2@1", "--not-done", "--yes")[0] == 0


def test_a_person_is_asked_before_something_is_given_up(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(say)
    hold(held(1, Reason.DEAD))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, code in ((False, 1), (True, 0)):
        monkeypatch.setattr("click.confirm", lambda *words, answer=answer, **options: answer)
        assert say("dead-letters", "discard", "bank.mail:x.Y/1@1")[0] == code


# --- db ---


def test_a_database_is_made_looked_into_verified_and_backed_up(say: Say) -> None:
    assert document(say("db", "init", "--json"))["made"] is True
    assert "was there, and is current" in say("db", "init")[1]
    fill(say)
    status = document(say("db", "status", "--json"))
    assert (status["position"], status["current"]) == (3, True)
    assert "position   3" in say("db", "status", "--store", "sqlite:///bank.db")[1]
    assert document(say("db", "sql", "select cents from statement", "--json")) == {"rows": []}
    assert say("db", "sql", "select stream, version from events where position = 2")[1] == "bank.Account/a  2\n"
    assert "CREATE TABLE events (" in say("db", "sql")[1]
    Path("query.sql").write_text("select count(*) from events", encoding="utf-8")
    assert say("db", "sql", "-f", "query.sql")[1] == "3\n"
    assert say("db", "sql", "delete from events") == (
        1, "", "error: `db sql` only reads; change data by commands and handlers\n",
    )  # fmt: skip
    assert say("db", "sql", "select nothing")[0] == 1
    assert document(say("db", "verify", "--json")) == {"whole": True, "problems": []}
    assert say("db", "verify")[:2] == (0, "whole\n")
    assert say("db", "upgrade")[1].startswith("nothing to do: database version")
    assert document(say("db", "backup", "copy.db", "--json"))["bytes"] == Path("copy.db").stat().st_size
    assert say("db", "backup", "copy.db")[0] == 3
    assert len(document(say("events", "list", "--store", "sqlite:///copy.db", "--json"))["events"]) == 3


def test_a_database_with_a_hole_fails_its_check(say: Say) -> None:
    fill(say)
    connection = apsw.Connection("bank.db")
    connection.execute("DELETE FROM events WHERE position = 1")
    connection.close()
    code, out, err = say("db", "verify")
    assert (code, out.split()[1]) == (7, "problems")
    assert "error: stream bank.Account/a" in err
    assert json.loads(say("db", "verify", "--json")[1])["whole"] is False


def test_memory_has_nothing_to_keep_up(say: Say) -> None:
    code, _, err = say("db", "verify", "--store", "memory://")
    assert code == 1
    assert "nothing to keep up" in err
