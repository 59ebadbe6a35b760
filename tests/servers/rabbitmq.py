"""A RabbitMQ server for tests, one for a whole run: all workers of pytest-xdist share it, each test has its own vhosts.

It runs as a user that is not root, on loopback, with a node name, folders and an epmd of its own. `HEADWATER_TEST_RABBITMQ`
(the AMQP URL of an administrator, whose management API listens on port 15672 of the same host, or `?management=PORT`) names a
server to be used in its place.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest

from tests.servers.postgres import Unavailable, _free_port, _runs, _wait_for_end, install_package
from tests.servers.sharing import Found, folder_of_run, locked, shared

GIVEN = "HEADWATER_TEST_RABBITMQ"
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
NODE = "headwater@localhost"
COOKIE = "headwater"
"""Whoever may read this file may rule the node; it listens on loopback only."""
TRIES = 5
READY = 60.0
"""Seconds that a start may take; it takes five on two cores that are idle."""
SETTINGS = {
    "disk_free_limit.absolute": "50MB",
    "raft.wal_max_size_bytes": "67108864",
    "log.console": "false",
}
ERLANG = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
"""Two schedulers that do not spin while they wait; the node is to be reached on loopback only."""


def install() -> None:
    """See to it that there are programs, by Debian's package if need be. Raises Unavailable."""
    if not os.environ.get(GIVEN):
        install_package("rabbitmq-server", lambda: PROGRAM.exists() and bool(shutil.which("erl_call")), GIVEN)


class RabbitmqServer:
    """A server on ports of its own, with its data in `folder`. `start`, `stop`, `kill` (-9), `pause`, and start it again."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports

    @classmethod
    def make(cls, *, certificates: Path | None = None, **settings: str) -> RabbitmqServer:
        """A new one, not yet started; with a folder of certificates it listens for TLS too. Raises Unavailable."""
        if not PROGRAM.exists():
            raise Unavailable("no RabbitMQ is installed")
        folder = Path(tempfile.mkdtemp(prefix="headwater-rabbitmq-"))
        server = cls(folder, {name: _free_port() for name in ("amqp", "amqps", "node", "epmd")})
        lines = SETTINGS | {"listeners.tcp.1": f"127.0.0.1:{server.ports['amqp']}"} | settings
        if certificates is not None:
            lines |= {
                "listeners.ssl.1": f"127.0.0.1:{server.ports['amqps']}",
                "ssl_options.cacertfile": str(folder / "ca.pem"),
                "ssl_options.certfile": str(folder / "server.pem"),
                "ssl_options.keyfile": str(folder / "server.key"),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "false",
                "ssl_cert_login_from": "common_name",
                "auth_mechanisms.1": "PLAIN",
                "auth_mechanisms.2": "EXTERNAL",
            }
            for name in ("ca.pem", "server.pem", "server.key"):
                shutil.copy(certificates / name, folder)
        (folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (folder / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].")
        (folder / ".erlang.cookie").write_text(COOKIE)
        (folder / ".erlang.cookie").chmod(0o400)
        if not os.getuid():
            owner = pwd.getpwnam("rabbitmq")
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        return server

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises Unavailable."""
        if not self._is_there("epmd"):
            self._spawn("epmd", ["epmd", "-address", "127.0.0.1", "-port", str(self.ports["epmd"])])
        self._spawn("server", [str(PROGRAM)])
        end = time.monotonic() + READY
        while not self._answers():
            if time.monotonic() > end or not self._is_there("server"):
                raise Unavailable(f"RabbitMQ does not start: {self.log()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again after `kill` or `stop`."""
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It neither works nor answers, and its connections stay."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and delete all its data."""
        if self._is_there("server"):
            self.kill()
        if self._is_there("epmd"):
            epmd = int((self.folder / "epmd.pid").read_text())
            os.kill(epmd, signal.SIGKILL)
            _wait_for_end(epmd)
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The process of the node that runs."""
        return int((self.folder / "data" / f"{NODE}.pid").read_text())

    def url(self, vhost: str, user: str = "guest", password: str = "guest", *, tls: bool = False) -> str:
        scheme, port = ("amqps", self.ports["amqps"]) if tls else ("rabbitmq", self.ports["amqp"])
        return f"{scheme}://{user}:{password}@localhost:{port}/{quote(vhost, safe='')}"

    def run(self, expression: str) -> str:
        """What an Erlang expression comes to on the node."""
        words = ["erl_call", "-address", f"localhost:{self.ports['node']}", "-c", COOKIE, "-e"]
        environment = os.environ | {"ERL_EPMD_PORT": str(self.ports["epmd"])}
        with locked(self.folder / "erl_call.lock"):  # the node takes one such client at a time
            for _ in range(TRIES):
                done = subprocess.run(
                    words, input=f"{expression}.\n", capture_output=True, text=True, env=environment, check=False
                )
                if "failed to connect" not in done.stderr:
                    break
                time.sleep(0.3)  # it has not yet let go of the one before
        if done.returncode or not done.stdout.startswith("{ok,"):
            raise RuntimeError(f"{expression}: {done.stdout or done.stderr}")
        return done.stdout.removeprefix("{ok,").rstrip().removesuffix("}").strip()

    def log(self) -> str:
        """What the server has said."""
        return "".join(path.read_text() for path in sorted((self.folder).glob("log/*.log")))

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["amqp"]), 1.0) as one:
            one.settimeout(5.0)
            one.sendall(b"AMQP\x00\x00\x09\x01")
            return one.recv(1) == b"\x01"
        return False

    def _end(self, how: int) -> None:
        starter, pid = int((self.folder / "server.pid").read_text()), self.pid
        os.kill(pid, how)
        for one in (pid, starter):
            _wait_for_end(one)

    def _is_there(self, program: str) -> bool:
        path = self.folder / f"{program}.pid"
        return path.exists() and _runs(int(path.read_text()))

    def _spawn(self, name: str, command: list[str]) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_DIST_PORT": str(self.ports["node"]),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
        }
        owner: dict[str, Any] = {} if os.getuid() else {"user": "rabbitmq", "group": "rabbitmq"}
        with (self.folder / f"{name}.said").open("ab") as said:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # it outlives the worker that has started it
                **owner,
            )
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        process.returncode = 0  # whoever stops it waits for its end; this object need not


# --- vhosts ---


class Rule(Protocol):
    """How vhosts are made and deleted on a server."""

    def make(self, vhost: str) -> str:
        """Make an empty one; its URL."""
        ...

    def delete(self, vhost: str) -> None:
        """Delete one with all that is in it, and cut off whoever is connected to it."""
        ...


class ByErlang:
    """On a server of our own: as its node itself does it."""

    def __init__(self, server: RabbitmqServer) -> None:
        self._server = server

    def make(self, vhost: str) -> str:
        name = f'<<"{vhost}">>, <<"guest">>'
        every = '<<".*">>, <<".*">>, <<".*">>'
        self._server.run(
            f"rabbit_vhost:add({name}),"
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{vhost}">>, {every}, <<"guest">>)'
        )
        return self._server.url(vhost)

    def delete(self, vhost: str) -> None:
        self._server.run(f'spawn(fun() -> rabbit_vhost:delete(<<"{vhost}">>, <<"guest">>) end)')  # nobody waits for it


class ByManagement:
    """On a server that was given: by its management API."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._port = parse_qs(self._parts.query).get("management", ["15672"])[0]

    def make(self, vhost: str) -> str:
        self._send("PUT", f"vhosts/{vhost}", {})
        every = {"configure": ".*", "write": ".*", "read": ".*"}
        self._send("PUT", f"permissions/{vhost}/{self._parts.username}", every)
        return self._parts._replace(path=f"/{vhost}", query="").geturl()

    def delete(self, vhost: str) -> None:
        self._send("DELETE", f"vhosts/{vhost}")

    def _send(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        user = base64.b64encode(f"{self._parts.username}:{self._parts.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://{self._parts.hostname}:{self._port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {user}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()


class Vhosts:
    """Makes vhosts on a server; `server` is None where it is not ours."""

    def __init__(self, rule: Rule, server: RabbitmqServer | None = None) -> None:
        self.server = server
        self._rule = rule
        self._made: list[str] = []

    @classmethod
    def of(cls, server: RabbitmqServer) -> Vhosts:
        """Those of a server of our own."""
        return cls(ByErlang(server), server)

    def make(self) -> str:
        """The URL of an empty vhost."""
        self._made.append(f"headwater_{uuid4().hex[:12]}")
        return self._rule.make(self._made[-1])

    def delete(self) -> None:
        """Delete all that were made."""
        while self._made:
            self._rule.delete(self._made.pop())

    def fresh(self) -> Vhosts:
        """Those of one test."""
        return Vhosts(self._rule, self.server)


def _started() -> Found:
    server = RabbitmqServer.make()
    server.start()
    return {"folder": str(server.folder), "ports": server.ports}


def _at(found: Found) -> RabbitmqServer:
    return RabbitmqServer(Path(found["folder"]), found["ports"])


@contextmanager
def shared_server(folder: Path) -> Iterator[Vhosts]:
    """The server of this test run: the first worker starts it, the last one stops it. Raises Unavailable."""
    if given := os.environ.get(GIVEN):
        yield Vhosts(ByManagement(given))
        return
    with shared(folder, "rabbitmq", _started, lambda found: _at(found).remove()) as found:
        yield Vhosts.of(_at(found))


@contextmanager
def own_server(make: Callable[[], RabbitmqServer] = RabbitmqServer.make) -> Iterator[RabbitmqServer]:
    """A server that a test may harm."""
    server = make()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vhosts]:
    """The server; the test is skipped where there is none."""
    try:
        install()
        with shared_server(folder_of_run(tmp_path_factory)) as vhosts:
            yield vhosts
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def rabbitmq(rabbitmq_server: Vhosts) -> Iterator[Vhosts]:
    """Makes vhosts for one test."""
    vhosts = rabbitmq_server.fresh()
    yield vhosts
    vhosts.delete()
