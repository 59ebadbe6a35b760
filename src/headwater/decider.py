"""Decisions, pure and synchronous: decide (state, command) -> events, evolve (state, event) -> state, fold.

`Decider` is the function form; the `Aggregate` class is sugar over it.
"""

from __future__ import annotations

import copy
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, dataclass_transform, overload

from msgspec import Struct

from headwater.errors import DeclarationError
from headwater.message import Names, named_fields

Method = TypeVar("Method", bound=Callable[..., Any])

NO_MESSAGES = (types.NoneType, Any)

Decide = Callable[[Any, Any], Any]
Evolve = Callable[[Any, Any], Any]


class Decider(Struct, frozen=True):
    """How one kind of stream decides and evolves.

    `category` names the streams and `key` the command field that names the stream's key; `decide` and `evolve` are by
    message class. An evolve function may change the state it is given, or return a new one.
    """

    category: str
    key: str
    initial: Callable[[], Any]
    decide: Mapping[type, Decide]
    evolve: Mapping[type, Evolve]


def decide(method: Method) -> Method:
    """Mark a method of an aggregate as the decision on the command class that its argument is annotated with.

    It returns one event, several, or None, or raises `Rejected`; it must not change the state.
    """
    method.__decides__ = True  # type: ignore[attr-defined]
    return method


@overload
def evolve(method: Method) -> Method: ...


@overload
def evolve(*, by: Names) -> Callable[[Method], Method]: ...


def evolve(method: Method | None = None, *, by: Names | None = None) -> Method | Callable[[Method], Method]:
    """Mark a method as the state change for the event class that its argument is annotated with.

    In a `Decision`, `by` names the tags of the events that are meant, which are fields of the command as well.
    """

    def mark(marked: Method) -> Method:
        marked.__evolves__ = True  # type: ignore[attr-defined]
        marked.__by__ = None if by is None else named_fields(by)  # type: ignore[attr-defined]
        return marked

    return mark if method is None else mark(method)


def fold(evolvers: Mapping[type, Evolve], state: Any, events: Iterable[Any]) -> Any:
    """The state after some events; an event class without an evolve function changes nothing."""
    for event in events:
        step = evolvers.get(type(event))
        if step is not None:
            changed = step(state, event)
            state = state if changed is None else changed
    return state


def as_messages(outcome: Any) -> tuple[Any, ...]:
    """What a decision or handler returned, as a tuple: None, one message, or an iterable of them."""
    if outcome is None:
        return ()
    if isinstance(outcome, list | tuple | Iterator):
        return tuple(outcome)
    return (outcome,)


@dataclass_transform(eq_default=True, kw_only_default=True)
class Folded:
    """State with defaults for every annotated field; the base of aggregates, read models and sagas."""

    __fields__: ClassVar[dict[str, Any]]
    __defaults__: ClassVar[dict[str, Any]]
    __copied__: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints = {
            name: hint for base in reversed(cls.__mro__) for name, hint in vars(base).get("__annotations__", {}).items()
        }
        cls.__defaults__ = {
            name: getattr(cls, name)
            for name, hint in hints.items()
            if hasattr(cls, name) and not name.startswith("_") and "ClassVar" not in str(hint)
        }
        cls.__copied__ = tuple(name for name, value in cls.__defaults__.items() if not _is_plain(value))

    def __init__(self, **fields: Any) -> None:
        state = self.__dict__
        state.update(self.__defaults__)
        for name in self.__copied__:
            state[name] = copy.deepcopy(state[name])
        state.update(fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | str | float | bool | bytes)


def field_types(cls: type) -> dict[str, Any]:
    """The annotated fields of a folded class with their resolved types, in order; every field needs a default."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise DeclarationError(f"{cls.__name__}: a field's annotation cannot be resolved: {error}") from error
    fields = {
        name: hint
        for name, hint in hints.items()
        if not name.startswith("_") and typing.get_origin(hint) is not ClassVar and hint is not ClassVar
    }
    missing = [name for name in fields if not hasattr(cls, name)]
    if missing:
        raise DeclarationError(f"{cls.__name__}.{missing[0]} needs a default: it is the state before the first event")
    return fields


def methods_by_type(cls: type, mark: str) -> dict[type, Callable[..., Any]]:
    """The marked methods of a class by the message classes their first argument is annotated with (a union: each)."""
    found: dict[type, Callable[..., Any]] = {}
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not hasattr(method, mark):
            continue
        if getattr(method, "__by__", None) is not None:
            raise DeclarationError(f"{method.__qualname__}: only a Decision evolves by tags")
        for message in argument_types(method, skip=1):
            if message in found:
                raise DeclarationError(
                    f"{cls.__name__} has two methods for {message.__name__}: {found[message].__name__} and {name}"
                )
            found[message] = method
    return found


def argument_types(function: Callable[..., Any], skip: int = 0) -> tuple[type, ...]:
    """The message classes that a function's first argument (after `skip`) is annotated with."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    where = getattr(function, "__qualname__", repr(function))
    if not parameters:
        raise DeclarationError(f"{where} must take a message as its argument")
    try:
        hint = typing.get_type_hints(function).get(parameters[0].name)
    except NameError as error:
        raise DeclarationError(
            f"{where}: the annotation of {parameters[0].name} cannot be resolved: {error}"
        ) from error
    if hint is None:
        raise DeclarationError(f"{where}: annotate {parameters[0].name} with the message class it takes")
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    if not all(isinstance(choice, type) and choice not in NO_MESSAGES for choice in choices):
        raise DeclarationError(f"{where}: {hint!r} is not a message class or a union of them")
    return tuple(choices)


def has_field(payload: type, name: str) -> bool:
    """Whether a message class has a field of a name."""
    return hasattr(payload, name) or any(name in vars(base).get("__annotations__", {}) for base in payload.__mro__)


class Deciding(Folded):
    """What commands are decided on; the base of aggregates and decisions."""

    __key__: ClassVar[str] = ""
    __category__: ClassVar[str] = ""

    def __init_subclass__(cls, *, key: str = "", category: str = "") -> None:
        super().__init_subclass__()
        cls.__key__ = key or cls.__key__
        cls.__category__ = category


def category_of(deciding: type[Deciding], service: str) -> str:
    """The stored name of the streams of an aggregate or a decision."""
    category = deciding.__category__ or deciding.__name__
    return category if category.startswith(f"{service}.") else f"{service}.{category}"


class Aggregate(Deciding):
    """A consistency boundary: fields with defaults, `@decide` methods for commands, `@evolve` methods for events.

    Class keywords: `key`, the name of the command field that names the stream, and `category`, its stored name
    (by default `<service>.<ClassName>`).
    """


def decider_of(aggregate: type[Aggregate], service: str) -> Decider:
    """The decider behind an aggregate class; DeclarationError where the class cannot work."""
    if not aggregate.__key__:
        raise DeclarationError(
            f"class {aggregate.__name__}(Aggregate, key=…): name the command field that holds its key"
        )
    field_types(aggregate)
    decisions = methods_by_type(aggregate, "__decides__")
    for command in decisions:
        if not has_field(command, aggregate.__key__):
            raise DeclarationError(
                f"{command.__name__} has no field {aggregate.__key__!r}, the key of {aggregate.__name__}"
            )
    category = category_of(aggregate, service)
    return Decider(category, aggregate.__key__, aggregate, decisions, methods_by_type(aggregate, "__evolves__"))
