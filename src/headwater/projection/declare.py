"""How a read model is declared, and how events fold into its rows: pure."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from headwater.decider import Folded, field_types, methods_by_type
from headwater.errors import DeclarationError, SchemaError
from headwater.table import Column, Table, Upsert

COLUMN_TYPES: dict[Any, str] = {int: "integer", str: "text", float: "real", bool: "boolean", bytes: "bytes"}
NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")


class Delete(Struct, frozen=True):
    """Returned by an `@evolve` method: the row goes."""


DELETE: Final = Delete()


class ReadModel(Folded):
    """A read model: one row a key, fields with defaults as columns, `@evolve` methods for events.

    Class keywords: `key`, the field (or fields) of its events that name the row; `table`, its stored name (by default the
    class name in snake case); `inline=True` to fold it in the commit of the events themselves. An `@evolve` method may
    return `DELETE`.
    """

    __keys__: ClassVar[tuple[str, ...]] = ()
    __table__: ClassVar[str] = ""
    __inline__: ClassVar[bool] = False

    def __init_subclass__(cls, *, key: str | tuple[str, ...] = (), table: str = "", inline: bool = False) -> None:
        super().__init_subclass__()
        cls.__keys__ = (key,) if isinstance(key, str) else tuple(key) or cls.__keys__
        cls.__table__ = table or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.__inline__ = inline


class Unstorable(SchemaError):
    """A row holds a value that its table cannot."""


class Projection(Struct, frozen=True):
    """A read model class taken apart: its table, and how its events change a row."""

    model: type[ReadModel]
    table: Table
    keys: tuple[str, ...]
    evolve: dict[type, Callable[..., Any]]
    hints: dict[str, Any]
    columns: tuple[str, ...]

    def key_of(self, event: Any) -> tuple[Any, ...]:
        """The key of the row that an event changes."""
        return tuple([getattr(event, key) for key in self.keys])

    def to_model(self, row: tuple[Any, ...]) -> ReadModel:
        """A stored row as an instance of the class."""
        values = dict(zip(self.columns, row, strict=True))
        for name, hint in self.hints.items():
            values[name] = msgspec.convert(values[name], hint, strict=False)
        return self.model(**values)

    def to_row(self, model: ReadModel) -> tuple[Any, ...]:
        """An instance as a row."""
        state = model.__dict__
        row = [state[name] for name in self.columns]
        if self.hints:
            for name in self.hints:
                row[self.columns.index(name)] = msgspec.to_builtins(state[name])
        return tuple(row)

    def fold(
        self, rows: dict[tuple[Any, ...], tuple[Any, ...]], events: Iterable[Any], *, check: bool = False
    ) -> Upsert:
        """The rows after some events, given the rows they touch as they were.

        Raises Unstorable at the end, or with `check` right after the event that made a row so.
        """
        live: dict[tuple[Any, ...], ReadModel | None] = {}
        for event in events:
            key = self.key_of(event)
            model = live.get(key)
            if model is None:
                row = rows.get(key) if key not in live else None
                model = self.to_model(row) if row is not None else self.model(**dict(zip(self.keys, key, strict=True)))
            live[key] = model = self._evolved(model, event)
            if check and model is not None:
                self._written(key, model)
        written = [self._written(key, model) for key, model in live.items() if model is not None]
        return Upsert(self.table, written, [key for key, model in live.items() if model is None])

    def _evolved(self, model: ReadModel, event: Any) -> ReadModel | None:
        changed = self.evolve[type(event)](model, event)
        if changed is None:
            return model
        if isinstance(changed, Delete):
            return None
        if isinstance(changed, ReadModel):
            return changed
        raise TypeError(f"an @evolve method of {self.model.__name__} gave {changed!r}, which is no row and no DELETE")

    def _written(self, key: tuple[Any, ...], model: ReadModel) -> tuple[Any, ...]:
        try:
            return self.to_row(model)
        except (TypeError, ValueError, RecursionError) as error:
            raise Unstorable(f"the row {key} of {self.table.name} cannot be stored: {error}") from error


def projection_of(model: type[ReadModel]) -> Projection:
    """Take a read model class apart; DeclarationError where it cannot work."""
    if not model.__keys__:
        raise DeclarationError(f"class {model.__name__}(ReadModel, key=…): name the event field that holds its key")
    evolve = methods_by_type(model, "__evolves__")
    if not evolve:
        raise DeclarationError(f"{model.__name__} has no @evolve method: it would stay empty")
    fields = {name: hint for name, hint in field_types(model).items() if name not in model.__keys__}
    columns = [Column(key, _key_type(model, key, evolve)) for key in model.__keys__]
    columns += [Column(name, column_type(hint)) for name, hint in fields.items()]
    for name in [model.__table__, *(column.name for column in columns)]:
        if not NAME.match(name):
            raise DeclarationError(
                f"{model.__name__}: {name!r} cannot name a table or column; use lower-case letters, digits and _"
            )
    hints = {name: hint for name, hint in fields.items() if column_type(hint) == "json"}
    table = Table(model.__table__, columns, len(model.__keys__))
    return Projection(model, table, model.__keys__, evolve, hints, table.names)


def _key_type(model: type[ReadModel], key: str, events: Iterable[type]) -> str:
    found = set()
    for event in events:
        hint = typing.get_type_hints(event).get(key)
        if hint is None:
            raise DeclarationError(f"{event.__name__} has no field {key!r}, the key of {model.__name__}")
        found.add(column_type(hint))
    if len(found) != 1 or found == {"json"}:
        raise DeclarationError(
            f"{model.__name__}: its events disagree on the type of {key!r}, or it is not a plain value"
        )
    return found.pop()


def column_type(hint: Any) -> str:
    """The column type of an annotation; what is not a plain value is stored as JSON."""
    choices = [one for one in typing.get_args(hint) if one is not type(None)] if _optional(hint) else [hint]
    return COLUMN_TYPES.get(choices[0], "json") if len(choices) == 1 else "json"


def _optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)
