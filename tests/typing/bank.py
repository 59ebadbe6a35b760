"""What a user writes, under `mypy --strict` and pyright: fields, keywords and answers are typed with no plugin."""

from typing import assert_type

from headwater import (
    END,
    After,
    Aggregate,
    App,
    Command,
    Committed,
    Event,
    Message,
    Once,
    ReadModel,
    Rejected,
    Saga,
    Transaction,
    Unknown,
    decide,
    evolve,
    react,
)


class Withdraw(Command):
    account_id: str
    cents: int


class SendReceipt(Command, service="mail", version=2):
    account_id: str
    copy: bool = False


class Withdrawn(Event, stored="bank.MoneyWithdrawn", version=3):
    account_id: str
    cents: int


class Account(Aggregate, key="account_id", category="account"):
    cents: int = 0

    @decide
    def withdraw(self, command: Withdraw) -> Withdrawn:
        if command.cents > self.cents:
            raise Rejected("not enough money", available=self.cents)
        return Withdrawn(command.account_id, command.cents)

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents


class Statement(ReadModel, key="account_id", inline=True):
    withdrawn_cents: int = 0

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.withdrawn_cents += event.cents


class Closing(Saga, key="account_id"):
    receipts: int = 0

    @react(starts=True)
    def withdrawn(self, event: Withdrawn) -> list[object]:
        return [SendReceipt(event.account_id), After(event, minutes=15), END]


app = App("bank")
app.add(Account, Statement, Closing)


@app.on(Withdrawn)
async def receipt(event: Withdrawn, message: Message, once: Once) -> SendReceipt:
    async def send(key: str) -> str:
        return f"{key} {message.id}"

    await once("mail", send)
    return SendReceipt(event.account_id)


@app.on(Withdrawn, name="ledger")
def book(event: Withdrawn, transaction: Transaction) -> None:
    transaction.execute("insert into ledger values (?, ?)", (event.account_id, event.cents))


async def use() -> None:
    async with app.client():
        assert_type(await app.send(Withdraw("a1", 5)), Committed)
        answer = await app.attempt(Withdraw(account_id="a1", cents=5), key="k")
        assert_type(answer, Committed | Rejected | Unknown)
        assert_type(await app.get(Statement, "a1"), Statement | None)
        assert_type(await app.find(Statement, withdrawn_cents=5), list[Statement])
        account = await app.load(Account, "a1", version=2)
        assert_type(account.cents, int)
