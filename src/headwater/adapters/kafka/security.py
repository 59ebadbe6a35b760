"""Who may listen, and who we are: TLS and SASL as the URL says them, and as librdkafka wants them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from headwater.config import setting
from headwater.errors import ConfigurationError

MECHANISMS: Final = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
PASSWORD: Final = "HEADWATER_KAFKA_PASSWORD"
KEY_PASSWORD: Final = "HEADWATER_KAFKA_KEY_PASSWORD"


class SecurityOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """`tls`: else on for brokers that are not on this machine, and where a file is named; files are PEM."""

    tls: Literal["", "on", "off"] = ""
    sasl: Literal["", "plain", "scram-sha-256", "scram-sha-512"] = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


def properties(options: SecurityOptions, hosts: Sequence[str], user: str, password: str) -> dict[str, str]:
    """The settings of a client. Raises ConfigurationError."""
    files = {name: getattr(options, name) for name in ("ca", "cert", "key") if getattr(options, name)}
    there = all(is_local(host) for host in hosts)
    encrypted = options.tls == "on" or (not options.tls and (not there or bool(files)))
    if files and not encrypted:
        raise ConfigurationError(f"tls=off has no use for {', '.join(files)}: leave one of them out")
    if options.sasl and not user:
        raise ConfigurationError(f"sasl={options.sasl} needs a user: write kafka://user@host:9092 and set {PASSWORD}")
    found = {"security.protocol": ("SASL_" if user else "") + ("SSL" if encrypted else "PLAINTEXT")}
    if encrypted:
        found |= _tls(files)
    if user:
        found |= _sasl(options.sasl or "scram-sha-512", user, password)
    return found


def is_local(host: str) -> bool:
    """Whether a host is this machine: nobody listens on the way."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(files: dict[str, str]) -> dict[str, str]:
    for name, path in files.items():
        if not Path(path).is_file():
            raise ConfigurationError(f"{name}={path} names no file")
    if ("cert" in files) != ("key" in files):
        raise ConfigurationError("cert= and key= belong together: a client's certificate and its key")
    names = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
    found = {names[name]: path for name, path in files.items()}
    if "key" in files and (password := setting(KEY_PASSWORD)):
        found["ssl.key.password"] = password
    return found


def _sasl(mechanism: str, user: str, password: str) -> dict[str, str]:
    password = password or setting(PASSWORD)
    if not password:
        raise ConfigurationError(
            f"user {user} has no password: set {PASSWORD}, or {PASSWORD}_FILE to the name of a file with it"
        )
    return {"sasl.mechanism": MECHANISMS[mechanism], "sasl.username": user, "sasl.password": password}
