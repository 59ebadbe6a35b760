"""Sending a command by hand: its type by name, its fields as JSON from outside."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.app import App
from headwater.errors import NotFound, Rejected, SchemaError, Unknown
from headwater.message import Metadata
from headwater.schema import MessageType, check_strict
from headwater.store import Committed


def find_command(app: App, name: str) -> MessageType:
    """The command type of a stored name or class name. Raises NotFound, also where another service decides it."""
    commands = [one for one in app.schema.types() if one.kind == "command"]
    found = [one for one in commands if name in (one.name, one.payload.__name__)]
    if not found:
        known = ", ".join(one.name for one in commands) or "none"
        raise NotFound(f"{app.name} knows no command {name!r}; it knows: {known}")
    if len(found) > 1:
        raise NotFound(f"{name!r} can be any of {', '.join(one.name for one in found)}; give the whole name")
    [command] = found
    if command.payload not in app.declared.decided:
        raise NotFound(
            f"{app.name} sends {command.name}, but {command.service} decides it; use the app of {command.service}"
        )
    return command


def read_command(app: App, name: str, data: bytes) -> Any:
    """The command that a name and the bytes of its JSON mean, after the strict checks.

    Raises NotFound for the name, SchemaError for the data.
    """
    command = find_command(app, name)
    fields = check_strict(data)
    if not isinstance(fields, dict):
        raise SchemaError(f"{command.name} takes a JSON object with its fields")
    _check_names(command, fields)
    return app.schema.decode(command.name, command.version, data)


def _check_names(command: MessageType, fields: dict[str, Any]) -> None:
    """A misspelt optional field would be left out in silence."""
    if not issubclass(command.payload, msgspec.Struct):
        return
    known = [field.encode_name for field in msgspec.structs.fields(command.payload)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise SchemaError(f"{command.name} has no field {unknown[0]!r}; it has: {', '.join(known) or 'none'}")


async def send_command(
    app: App, command: Any, key: str, *, tenant: str = "", actor: str = ""
) -> Committed | Rejected | Unknown:
    """Decide and commit a command from an app that is connected; the answer as a value. Raises KeyReused and the like."""
    return await app.attempt(command, key=key, metadata=Metadata(key, actor=actor, tenant=tenant))
