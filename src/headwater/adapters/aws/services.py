"""The clients of SNS and SQS: one connection pool each, bounded in time, with errors that are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from headwater.adapters.aws.faults import Unauthorized, translate
from headwater.adapters.aws.options import AwsOptions
from headwater.errors import ChannelError, ConfigurationError

Result = TypeVar("Result")
Answer = dict[str, Any]

CONNECT: Final = 5.0
ANSWER: Final = 5.0
"""Seconds to connect, and to answer where there is nothing to wait for."""
ATTEMPTS: Final = 3
"""Of one request, by AWS's client, where nothing came back or AWS was busy."""
CONNECTIONS: Final = 100
CALLS: Final = 8
"""Requests of one piece of work that are under way at once."""
PARTITIONS: Final = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))


class Services:
    """SNS and SQS in one region, as one account; open one a process."""

    def __init__(self, options: AwsOptions) -> None:
        self.options = options
        self.place = options.endpoint or "AWS"
        self.account = options.account
        self.region = options.region
        self._clients: dict[str, Any] = {}
        self._closing = AsyncExitStack()

    @property
    def opened(self) -> bool:
        """Whether requests may be made."""
        return bool(self._clients)

    async def open(self) -> None:
        """Find out who and where we are. Raises ConfigurationError or ChannelError."""
        session = AioSession()
        self.region = self.options.region or session.get_config_variable("region") or ""
        if not self.region:
            raise ConfigurationError("no region is given, and AWS's own settings name none: aws://?region=eu-west-1")
        try:
            for name in ("sns", "sqs") if self.account else ("sns", "sqs", "sts"):
                client = client_of(session, name, self.region, self.options.endpoint, self.options.poll)
                self._clients[name] = await self._closing.enter_async_context(client)
            if not self.account:
                self.account = (await self.ask("sts", "get_caller_identity"))["Account"]
        except BaseException as error:
            await self.close()
            if isinstance(error, Unauthorized):
                raise ConfigurationError(str(error)) from None
            if isinstance(error, BotoCoreError):
                raise ConfigurationError(f"AWS's client cannot start with its settings: {error}") from None
            raise

    async def close(self) -> None:
        """Let go of all connections."""
        self._clients = {}
        await self._closing.aclose()

    async def ask(self, service: str, operation: str, **given: Any) -> Answer:
        """One request. Raises ChannelError, of the kinds that `faults` tells apart."""
        client = self._clients.get(service)
        if client is None:
            raise ChannelError("the channel is not open")
        return await ask(client, service, operation, self.place, **given)

    def topic_arn(self, name: str) -> str:
        """The whole name of a topic."""
        return f"arn:{self._partition}:sns:{self.region}:{self.account}:{name}"

    def queue_arn(self, name: str) -> str:
        """The whole name of a queue."""
        return f"arn:{self._partition}:sqs:{self.region}:{self.account}:{name}"

    @property
    def _partition(self) -> str:
        return next((name for start, name in PARTITIONS if self.region.startswith(start)), "aws")


def client_of(session: AioSession, name: str, region: str, endpoint: str, wait: float = 0) -> Any:
    """A client of a service of AWS, to be entered; an answer that has nothing else to wait for waits for so many seconds."""
    config = AioConfig(
        connect_timeout=CONNECT,
        read_timeout=wait + ANSWER,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    return session.create_client(name, region_name=region or None, endpoint_url=endpoint or None, config=config)


async def ask(client: Any, service: str, operation: str, place: str, **given: Any) -> Answer:
    """One request. Raises ChannelError, of the kinds that `faults` tells apart."""
    try:
        answer: Answer = await getattr(client, operation)(**given)
    except (BotoCoreError, ClientError, OSError) as error:
        raise translate(error, f"{service}.{operation}", place) from None
    return answer


async def together(work: Iterable[Coroutine[Any, Any, Result]], most: int = CALLS) -> list[Result]:
    """The results of all, so many at once; when all have ended, the first error is raised."""
    turns = asyncio.Semaphore(most)

    async def one(coroutine: Coroutine[Any, Any, Result]) -> Result:
        async with turns:
            return await coroutine

    done = await asyncio.gather(*map(one, work), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return done  # type: ignore[return-value]  # no error is among them
