"""Claims as objects of a bucket: `s3://bucket/prefix?region=eu-west-1`, one each, named by its hash."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from headwater.adapters.aws.faults import Missing, translate
from headwater.adapters.aws.options import check_endpoint, value_of
from headwater.adapters.aws.services import Answer, ask, client_of
from headwater.claims import name_of
from headwater.errors import ChannelError, ConfigurationError

EXAMPLE: Final = "write s3://bucket/prefix?region=eu-west-1"
OPTIONS: Final = ("region", "endpoint", "plaintext")

_bucket = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]").fullmatch


class S3Claims:
    """The claims in a bucket; what is older than anybody needs may be deleted by its lifecycle."""

    def __init__(self, bucket: str, prefix: str = "", region: str = "", endpoint: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.region = region
        self.endpoint = endpoint
        self._turn = asyncio.Lock()
        self._client: Any = None
        self._closing = AsyncExitStack()

    @classmethod
    def from_url(cls, url: str) -> S3Claims:
        """The claims of `s3://bucket/prefix`; options: `region`, `endpoint`, `plaintext=yes`. Raises ConfigurationError."""
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ConfigurationError(f"a URL of S3 holds no credentials, AWS's own client finds them: {EXAMPLE}")
        if not _bucket(parts.netloc):
            raise ConfigurationError(f"{parts.netloc[:63]!r} is no name of a bucket: {EXAMPLE}")
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := given.keys() - set(OPTIONS):
            raise ConfigurationError(
                f"{min(unknown)!r} is no option of claims in S3; the options are {', '.join(OPTIONS)}"
            )
        plaintext = value_of("plaintext", given.get("plaintext", "no"))
        check_endpoint(given.get("endpoint", ""), plaintext is True)
        folder = unquote(parts.path).strip("/")
        return cls(parts.netloc, f"{folder}/" if folder else "", given.get("region", ""), given.get("endpoint", ""))

    async def leave(self, body: bytes) -> str:
        """Keep a body: S3 has it on disk, in several places, before it answers."""
        key = self.prefix + name_of(body)
        await self._ask("put_object", Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    async def fetch(self, name: str) -> bytes | None:
        """What was left under a name."""
        try:
            found = await self._ask("get_object", Key=self.prefix + name)
        except Missing:
            return None
        try:
            async with found["Body"] as stream:
                body: bytes = await stream.read()
        except (BotoCoreError, ClientError, OSError) as error:
            raise translate(error, "s3.get_object", self._place) from None
        return body

    async def close(self) -> None:
        """Let go of the client's connections."""
        self._client = None
        await self._closing.aclose()

    async def _ask(self, operation: str, **given: Any) -> Answer:
        async with self._turn:
            if self._client is None:
                self._client = await self._made()
        return await ask(self._client, "s3", operation, self._place, Bucket=self.bucket, **given)

    async def _made(self) -> Any:
        try:
            return await self._closing.enter_async_context(client_of(AioSession(), "s3", self.region, self.endpoint))
        except BotoCoreError as error:
            raise ChannelError(f"AWS's client cannot start with its settings: {error}") from None

    @property
    def _place(self) -> str:
        return self.endpoint or "S3"
