"""The claim check: what is larger than the channel takes is left in a folder, durably, before its message goes; none is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater import App, ChannelError, ConfigurationError, Retry
from headwater.adapters.folder import FolderClaims
from headwater.adapters.memory import MemoryChannel
from headwater.app import open_claims
from headwater.channel import Publication
from headwater.claims import checked, name_of, redeem
from headwater.clock import SystemClock
from headwater.inbox import Held, Reason
from headwater.message import CLAIM
from headwater.operations import republish
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, killed, played, publication, redrive, settles
from tests.flow.shop import Bump, Taker, Tally, shop

LARGE = "x" * 5_000
PATIENT = Retry(attempts=5, base=10, cap=10)


def place(folder: Path) -> str:
    return folder.as_uri()


def pair(folder: Path, **options: Any) -> tuple[App, Taker]:
    """A producer and a consumer that share a folder for claims."""
    return shop(claims=place(folder)), Taker(claims=place(folder), **{"model": False, **options})


def narrow(world: Harness, size: int = 4_000) -> None:
    world.channel.capabilities = msgspec.structs.replace(world.channel.capabilities, max_bytes=size)


async def bump(app: App, *keys: str, say: str = "") -> None:
    for key in keys:
        await app.send(Bump(key, say))


async def again(world: Harness, producer: App) -> int:
    """What `headwater republish --from 1` does."""
    done = await republish("shop", world.databases["shop"], producer.wiring.channel, 1)
    return done.messages


def spied(world: Harness) -> list[Publication]:
    """What is published from now on."""
    seen: list[Publication] = []
    publish = world.channel.publish

    async def spying(publications: Sequence[Publication], **options: Any) -> Any:
        seen.extend(publications)
        return await publish(publications, **options)

    world.channel.publish = spying  # type: ignore[method-assign]
    return seen


def read(one: Publication) -> bytes:
    """The body that a message refers to; nothing if it is not there."""
    path = Path(one.headers["dataref"].removeprefix("file://"))
    return path.read_bytes() if path.exists() else b""


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@played
async def test_what_the_channel_does_not_take_is_left_in_the_folder_and_handled_and_folded(tmp_path: Path) -> None:
    producer, taker = pair(tmp_path, model=True)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        seen = spied(world)
        await bump(producer, "a", say="small")
        await bump(producer, *"ab", say=LARGE)
        await world.settle()
        assert sorted(taker.calls) == [("a", 1), ("a", 2), ("b", 1)]
        assert (await taker.app.get(Tally, "a")).numbers == [1, 2]
        assert await world.held(taker.app) == await world.held(producer) == []
        bodies = {
            one.headers["subject"] + one.headers["streamversion"]: one for one in seen if "dataref" in one.headers
        }
        assert bodies.keys() == {"shop.Counter/a2", "shop.Counter/b1"}
        for one in bodies.values():
            assert (one.body, one.headers["datacontenttype"]) == (b"", "application/json")
            assert msgspec.json.decode(read(one))["say"] == LARGE
        assert [path.name for path in files(tmp_path)] == sorted(map(name_of, map(Path.read_bytes, files(tmp_path))))
        assert all("dataref" not in one.headers for one in seen if one.body), "what the channel takes, it carries"


@played
async def test_a_body_is_in_the_folder_before_its_message_is_published(tmp_path: Path) -> None:
    producer, _ = pair(tmp_path)
    async with Harness(producer) as world:
        narrow(world)
        publish, checked = world.channel.publish, []

        async def checking(publications: Sequence[Publication], **options: Any) -> Any:
            for one in publications:
                if "dataref" in one.headers:
                    assert name_of(read(one)) == one.headers["dataref"].rpartition("/")[2]
                    checked.append(one)
            return await publish(publications, **options)

        world.channel.publish = checking  # type: ignore[method-assign]
        await bump(producer, "a", say=LARGE)
        await world.settle()
        assert len(checked) == 1


@played
async def test_a_claim_that_is_missing_holds_its_key_and_others_flow_until_it_is_published_again(
    tmp_path: Path,
) -> None:
    producer, taker = pair(tmp_path, retry=PATIENT)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        publish = world.channel.publish

        async def losing(publications: Sequence[Publication], **options: Any) -> Any:
            answer = await publish(publications, **options)
            for path in files(tmp_path):
                path.unlink()
            return answer

        world.channel.publish = losing  # type: ignore[method-assign]
        await bump(producer, "a", say=LARGE)
        await bump(producer, "a", "b")
        await world.settle()
        assert taker.calls == [("b", 1)]
        first, behind = await world.held(taker.app)
        assert (first.message.version, first.reason, first.message.codec) == (1, Reason.RETRY, CLAIM)
        assert "is not there: have its service publish the message again, `headwater republish" in first.cause
        assert (behind.message.version, behind.reason) == (2, Reason.BEHIND)
        world.channel.publish = publish  # type: ignore[method-assign]
        assert await again(world, producer) == 3
        await world.settle()
        assert taker.calls == [("b", 1)], "it is not its turn yet"
        await world.advance(seconds=15)
        assert taker.calls == [("b", 1), ("a", 1), ("a", 2)]
        assert await world.held(taker.app) == []


@played
async def test_after_its_last_attempt_it_is_a_dead_letter_that_can_be_redriven(tmp_path: Path) -> None:
    producer, taker = pair(tmp_path, retry=Retry(attempts=2, base=1, cap=1))
    async with Harness(producer, taker.app) as world:
        narrow(world)
        await bump(producer, "a", say=LARGE)
        [relay] = [flow for flow in world._flows["shop"] if type(flow).__name__ == "Relay"]
        await relay.step()
        files(tmp_path)[0].unlink()
        await world.advance(minutes=1)
        dead: list[Held] = await world.held(taker.app, Reason.DEAD)
        assert len(dead) == 1
        await again(world, producer)
        await redrive(world, taker.app, dead[0])
        await world.settle()
        assert taker.calls == [("a", 1)]
        assert await world.held(taker.app) == []


@pytest.mark.parametrize("harm", [b"", b"something else", b"{}"])
@played
async def test_a_claim_that_is_not_what_was_left_is_not_handled_and_mended_by_publishing_again(
    tmp_path: Path, harm: bytes
) -> None:
    producer, taker = pair(tmp_path, retry=PATIENT)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        await bump(producer, "a", say=LARGE)
        [relay] = [flow for flow in world._flows["shop"] if type(flow).__name__ == "Relay"]
        await relay.step()
        files(tmp_path)[0].write_bytes(harm)
        await world.settle()
        [row] = await world.held(taker.app)
        assert "is not what was left there" in row.cause
        await again(world, producer)
        await world.advance(seconds=15)
        assert taker.calls == [("a", 1)]


@played
async def test_a_service_that_has_no_place_for_claims_is_told_so_and_waits(tmp_path: Path) -> None:
    producer, taker = shop(claims=place(tmp_path)), Taker(model=False, retry=PATIENT)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        await bump(producer, "a", say=LARGE)
        await world.settle()
        [row] = await world.held(taker.app, Reason.RETRY)
        assert "set HEADWATER_CLAIMS to where this service finds" in row.cause
        assert taker.calls == []


@pytest.mark.parametrize(
    "reference", ["file:///etc/passwd", "file:///x/../../etc/passwd", "https://example.com/" + "A" * 64]
)
@played
async def test_a_reference_to_anything_else_is_refused_and_nothing_is_read(tmp_path: Path, reference: str) -> None:
    taker = Taker(model=False, claims=place(tmp_path))
    async with Harness(taker.app) as world:
        await world.channel.publish([publication("shop.Counter/a", 1, "shop.Bumped", b"", dataref=reference)])
        await world.settle()
        [row] = await world.held(taker.app, Reason.DEAD)
        assert "is no claim of Headwater" in row.cause


@played
async def test_what_cannot_be_left_is_not_published_and_goes_once_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    producer, taker = pair(folder)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        folder.rmdir()
        await bump(producer, "b", "a", say=LARGE)
        with pytest.raises(ChannelError, match="a claim cannot be left in"):
            await world.settle()
        folder.mkdir()
        await world.settle()
        assert sorted(taker.calls) == [("a", 1), ("b", 1)]


@played
async def test_a_process_killed_between_leaving_and_publishing_publishes_when_it_is_back(tmp_path: Path) -> None:
    producer, taker = pair(tmp_path)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        publish = world.channel.publish

        async def dying(publications: Sequence[Publication], **options: Any) -> Any:
            if any("dataref" in one.headers for one in publications):
                world.channel.publish = publish  # type: ignore[method-assign]
                raise Killed
            return await publish(publications, **options)

        world.channel.publish = dying  # type: ignore[method-assign]
        await bump(producer, "a", say=LARGE)
        await killed(world, producer)
        assert len(files(tmp_path)) == 1
        await world.settle()
        assert taker.calls == [("a", 1)]


@played
async def test_its_effect_happens_once_however_often_its_commit_fails(tmp_path: Path) -> None:
    producer, taker = pair(tmp_path)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        await bump(producer, *"aa", say=LARGE)
        with failing_commits(world.databases["mail"], Killed(), settles("mail.note")):
            await killed(world, taker.app)
        await world.settle()
        assert taker.calls[-2:] == [("a", 1), ("a", 2)]
        assert len(taker.calls) == 4
        log = await world.databases["mail"].read(0, 100)
        assert [one.version for one in log if one.type == "mail.Noted"] == [1, 2]


class Hanging:
    """A place that answers nothing."""

    asked = 0

    async def leave(self, body: bytes) -> str:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError(body)

    async def close(self) -> None:
        assert self.asked

    async def fetch(self, name: str) -> bytes | None:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError(name)


@played
async def test_a_place_that_hangs_fails_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.claims.PATIENCE", 0.05)
    channel = MemoryChannel(SystemClock())
    channel.capabilities = msgspec.structs.replace(channel.capabilities, max_bytes=4_000)
    hanging = Hanging()
    async with asyncio.timeout(5), AsyncExitStack() as closing:
        check = checked(channel, hanging)
        await check.open()
        closing.push_async_callback(check.close)
        with pytest.raises(ChannelError, match="has not answered for"):
            await check.publish([publication("shop.Counter/a", 1, "shop.Bumped", LARGE.encode())])
        with pytest.raises(ChannelError, match="has not answered for"):
            await redeem(hanging, f"file:///{name_of(b'')}")


# --- the folder ---


@played
async def test_a_file_is_whole_and_on_disk_before_its_name_stands_there_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    flush, replace = os.fsync, Path.replace

    def flushing(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append("folder" if target.is_dir() else f"{target.stat().st_size} bytes")
        flush(descriptor)

    def naming(self: Path, target: Path) -> Path:
        seen.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(Path, "replace", naming)
    claims = FolderClaims(tmp_path)
    body = LARGE.encode()
    uri = await claims.leave(body)
    assert seen == ["5000 bytes", "name", "folder"]
    assert uri == (tmp_path / name_of(body)).as_uri()
    assert await claims.fetch(name_of(body)) == body
    assert files(tmp_path) == [tmp_path / name_of(body)]


@played
async def test_what_is_there_is_not_written_again_unless_it_has_grown_old(tmp_path: Path) -> None:
    claims = FolderClaims(tmp_path)
    await claims.leave(b"body")
    [path] = files(tmp_path)
    first = path.stat().st_ino
    await claims.leave(b"body")
    assert path.stat().st_ino == first
    os.utime(path, (1, 1))
    await claims.leave(b"body")
    assert path.stat().st_mtime > 1, "who deletes by age keeps it"


@played
async def test_of_a_file_that_could_not_be_written_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    claims = FolderClaims(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ChannelError, match="No space left"):
        await claims.leave(b"body")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///no/such/folder", "make it, or mount it"),
        ("file://host/folder", "write file:///srv/claims"),
        ("file:///tmp?x=1", "write file:///srv/claims"),
        ("nosuch://x", "no place for claims has the scheme 'nosuch'; known: file, s3"),
        ("s3://", "is no name of a bucket: write s3://bucket"),
        ("s3://key:secret@bucket", "holds no credentials"),
        ("s3://bucket?regoin=x", "'regoin' is no option of claims in S3; the options are region, endpoint, plaintext"),
        ("s3://bucket?endpoint=http://example.com", "use https, or say plaintext=yes"),
        ("s3://bucket?plaintext=1", "write plaintext=yes"),
        ("/srv/claims", "is not a URL"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_what_to_write(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        open_claims(url)


def test_the_place_comes_from_the_app_the_environment_or_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert App("a").settings().claims == ""
    (tmp_path / "pyproject.toml").write_text('[tool.headwater]\nclaims = "file:///project"\n')
    assert App("a").settings().claims == "file:///project"
    monkeypatch.setenv("HEADWATER_CLAIMS", "file:///environment")
    assert App("a").settings().claims == "file:///environment"
    assert App("a", claims="file:///app").settings().claims == "file:///app"
