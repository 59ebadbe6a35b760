"""Apache Kafka for tests, one broker for a whole run: all workers of pytest-xdist share it, each test has its own prefix.

Its jars come from Maven Central, once, into a cache folder; it runs in one process, broker and controller, on loopback.
`HEADWATER_TEST_KAFKA` (host:port) names a broker to be used in its place.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.servers.certificates import Certificates
from tests.servers.postgres import Unavailable, _free_port, _runs, _wait_for_end, install_package
from tests.servers.sharing import Found, folder_of_run, locked, shared

GIVEN = "HEADWATER_TEST_KAFKA"
VERSION = "4.1.0"
OLDEST_JAVA = 17
CACHE = Path.home() / ".cache" / "headwater" / "kafka"
PASSWORD = "pass word/+%@"
"""Of the users ada (SCRAM) and grace (PLAIN)."""
JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Compiled by the quick compiler alone, it is up in half the time."""
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>headwater.tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
</dependencies></project>
"""
LOGGING = """
rootLogger.level=WARN
rootLogger.appenderRef.file.ref=F
appender.file.type=File
appender.file.name=F
appender.file.fileName={folder}/log
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c %m%n
"""
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": (
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL"
    ),
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.coordinator.append.linger.ms": "1",
    "broker.session.timeout.ms": "1000",  # one that was killed may come back after so long
    "broker.heartbeat.interval.ms": "300",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "listener.name.ssl.ssl.client.auth": "required",
    "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "listener.name.sasl_ssl.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_grace="{PASSWORD}";'
    ),
    "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
}


# --- programs ---


def java() -> str | None:
    """The Java of this machine, if it is new enough."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if not found:
        return None
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return found if version and int(version[1]) >= OLDEST_JAVA else None


def jars() -> Path:
    """The folder of Kafka's jars."""
    return CACHE / f"lib-{VERSION}"


def install() -> None:
    """See to it that there is a broker for tests that share one. Raises Unavailable."""
    if not os.environ.get(GIVEN):
        install_programs()


def install_programs() -> None:
    """See to it that there are Java and Kafka's jars. Raises Unavailable."""
    install_package("default-jre-headless", lambda: java() is not None, GIVEN)
    if (jars() / ".complete").exists():
        return
    install_package("maven", lambda: shutil.which("mvn") is not None, GIVEN)
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "lock"):
        if not (jars() / ".complete").exists():
            _fetch()


def _fetch() -> None:
    (CACHE / "pom.xml").write_text(POM)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars()}"]
    words = ["mvn", "--quiet", "--batch-mode", "--file", str(CACHE / "pom.xml"), *goal]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"Kafka's jars cannot be fetched: {done.stdout.strip()[-300:]}")
    (jars() / ".complete").touch()


# --- a broker ---


@dataclass(frozen=True)
class Ports:
    """Where it listens: in plain text, by TLS with client certificates, by TLS and SASL; and where a proxy may stand."""

    plain: int
    controller: int
    tls: int
    sasl: int
    behind: int
    """Who connects here is told to come to `proxy`."""
    proxy: int

    @classmethod
    def free(cls) -> Ports:
        return cls(*(_free_port() for _ in range(6)))


class KafkaServer:
    """A broker with its data in `folder`: `start`, `stop`, `kill` (-9) and start it again, `pause` and `resume`."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports

    @classmethod
    def make(cls, **settings: str) -> KafkaServer:
        """A new one, not yet started; a setting's dots are written as underscores. Raises Unavailable."""
        if java() is None:
            raise Unavailable(f"no Java of version {OLDEST_JAVA} or newer is installed")
        server = cls(Path(tempfile.mkdtemp(prefix="headwater-kafka-")), Ports.free())
        server._certify()
        ports, at = server.ports, "127.0.0.1"
        places = {
            "PLAINTEXT": ports.plain,
            "CONTROLLER": ports.controller,
            "SSL": ports.tls,
            "SASL_SSL": ports.sasl,
            "PROXIED": ports.behind,
        }
        told = {name: port for name, port in (places | {"PROXIED": ports.proxy}).items() if name != "CONTROLLER"}
        lines = SETTINGS | {
            "listeners": ",".join(f"{name}://{at}:{port}" for name, port in places.items()),
            "advertised.listeners": ",".join(f"{name}://{at}:{port}" for name, port in told.items()),
            "controller.quorum.voters": f"1@{at}:{ports.controller}",
            "log.dirs": str(server.folder / "data"),
            "ssl.keystore.location": str(server.folder / "keystore.pem"),
            "ssl.truststore.location": str(server.folder / "ca.pem"),
        }
        lines |= {name.replace("_", "."): value for name, value in settings.items()}
        (server.folder / "properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (server.folder / "log4j2.properties").write_text(LOGGING.format(folder=server.folder))
        server._format()
        return server

    def _certify(self) -> None:
        """Its certificates, and a client's, lie in its folder."""
        Certificates("ada").write(self.folder)
        (self.folder / "keystore.pem").write_bytes(
            (self.folder / "server.key").read_bytes() + (self.folder / "server.pem").read_bytes()
        )

    def _format(self) -> None:
        name = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        users = [f"SCRAM-SHA-{bits}=[name=ada,password={PASSWORD}]" for bits in (256, 512)]
        words = ["format", f"--cluster-id={name}", "-c", str(self.folder / "properties")]
        for user in users:
            words += ["--add-scram", user]
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", *words), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(f"Kafka's data folder cannot be made: {(done.stdout + done.stderr).strip()[-300:]}")

    @property
    def address(self) -> str:
        """Where it listens in plain text."""
        return f"127.0.0.1:{self.ports.plain}"

    @property
    def pid(self) -> int:
        """The process that runs."""
        return int((self.folder / "pid").read_text())

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = self._java("kafka.Kafka", str(self.folder / "properties"))
        with (self.folder / "said").open(
            "a"
        ) as said:  # of a shell that ends: whoever started it may not be who ends it
            shell = ["sh", "-c", '"$@" & echo $! >pid', "sh"]
            subprocess.run(
                [*shell, *words], check=True, cwd=self.folder, stdout=said, stderr=said, start_new_session=True
            )
        deadline = time.monotonic() + 40
        while not answers(self.address):
            if not _runs(self.pid) or time.monotonic() > deadline:
                raise Unavailable(f"Kafka does not start: {self.log()[-500:]}")

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, without a word."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it where it is: it holds its connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete all its data."""
        if (self.folder / "pid").exists():
            self.kill()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """What it has said."""
        return "".join(one.read_text() for one in (self.folder / "said", self.folder / "log") if one.exists())

    def _end(self, how: int) -> None:
        try:
            os.kill(self.pid, how)
        except ProcessLookupError:
            return
        _wait_for_end(self.pid)

    def _java(self, *words: str) -> list[str]:
        found = java()
        assert found is not None
        options = [*JVM, f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"]
        return [found, *options, "-cp", f"{jars()}/*", *words]


def answers(address: str) -> bool:
    """Whether a broker at an address answers within a moment."""
    try:
        admin(address).list_topics(timeout=0.5)
    except KafkaException:
        return False
    return True


def admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 100})


# --- what tests are given ---


class Brokers:
    """A broker for tests, each under a prefix of its own; `server` is None where the broker was given."""

    def __init__(self, address: str, server: KafkaServer | None = None) -> None:
        self.address = address
        self.server = server
        self.admin = admin(address)
        self._made: list[str] = []

    def url(self, **options: object) -> str:
        """The URL of a channel with a prefix that nobody else has."""
        self._made.append(f"t{uuid4().hex[:12]}.")
        words = {"prefix": self._made[-1], "partitions": 4, "session": 1.0} | options
        return f"kafka://{self.address}?" + "&".join(f"{name}={value}" for name, value in words.items())

    def delete(self, topic: str) -> None:
        """Delete a topic, by its whole name, and wait until the broker has heard of it: until then it still takes."""
        self.admin.delete_topics([topic])[topic].result()
        deadline = time.monotonic() + 10
        while topic in self.admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"the broker still has the topic {topic}"
            time.sleep(0.02)

    def wipe(self, topic: str, partitions: int = 4) -> None:
        """Delete a topic, by its whole name, and make it anew."""
        self.delete(topic)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def configure(self, topic: str, name: str, value: str) -> None:
        """Change a setting of a topic, by its whole name."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result()

    def clear(self) -> None:
        """Delete the topics of all prefixes that were made."""
        prefixes, self._made = tuple(self._made), []
        found = [one for one in self.admin.list_topics(timeout=10).topics if one.startswith(prefixes or ("\0",))]
        if found:
            self.admin.delete_topics(found)


def _started() -> Found:
    server = KafkaServer.make()
    server.start()
    return {"folder": str(server.folder), "ports": asdict(server.ports)}


def _at(found: Found) -> KafkaServer:
    return KafkaServer(Path(found["folder"]), Ports(**found["ports"]))


@contextmanager
def shared_server(folder: Path) -> Iterator[Brokers]:
    """The broker of this test run: the first worker starts it, the last one ends it. Raises Unavailable."""
    if given := os.environ.get(GIVEN):
        yield Brokers(given)
        return
    with shared(folder, "kafka", _started, lambda found: _at(found).remove()) as found:
        server = _at(found)
        yield Brokers(server.address, server)


@contextmanager
def own_server() -> Iterator[KafkaServer]:
    """A broker that nobody else uses. Raises Unavailable."""
    install_programs()
    server = KafkaServer.make()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """The broker; the test is skipped where there is none."""
    try:
        install()
        with shared_server(folder_of_run(tmp_path_factory)) as brokers:
            yield brokers
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def kafka(kafka_server: Brokers) -> Iterator[Brokers]:
    """A broker for one test."""
    yield kafka_server
    kafka_server.clear()


@pytest.fixture(scope="module")
def own_kafka_server() -> Iterator[KafkaServer]:
    """A broker that the tests of a module may harm; what has harmed it mends it again."""
    try:
        with own_server() as server:
            yield server
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def own_kafka(own_kafka_server: KafkaServer) -> Brokers:
    """It, for one test."""
    return Brokers(own_kafka_server.address, own_kafka_server)
