"""How a saga is declared: state with defaults, `@evolve` and `@react` methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar, overload

from msgspec import Struct

from headwater.decider import Folded, field_types, methods_by_type
from headwater.errors import DeclarationError
from headwater.message import Refused

Method = TypeVar("Method", bound=Callable[..., Any])


class End(Struct, frozen=True):
    """The saga instance is over; later messages for it are dropped."""


END: Final = End()


class Undo(Struct, frozen=True):
    """A command to remember: `Compensate()` sends all that are remembered, the last first."""

    command: Any


class Compensate(Struct, frozen=True):
    """Send the commands remembered with `Undo`, the last first."""


class Saga(Folded):
    """A saga: fields with defaults, `@evolve` methods that change them and `@react` methods that say what to do next.

    Class keywords: `key`, the field of every event that names the instance, and `name`, its stored name (by default the
    class name in lower case). A `@react` method returns or yields commands, `After` timers, `CancelTimer`, `Undo`,
    `Compensate` and `END`.
    """

    __key__: ClassVar[str] = ""
    __named__: ClassVar[str] = ""

    def __init_subclass__(cls, *, key: str = "", name: str = "") -> None:
        super().__init_subclass__()
        cls.__key__ = key or cls.__key__
        cls.__named__ = name or cls.__name__.lower()


@overload
def react(method: Method, /) -> Method: ...
@overload
def react(*, starts: bool = False) -> Callable[[Method], Method]: ...
def react(method: Callable[..., Any] | None = None, /, *, starts: bool = False) -> Any:
    """Mark a method as the reaction to the message class it is annotated with; `starts=True`: it may begin an instance."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__reacts__ = True  # type: ignore[attr-defined]
        function.__starts__ = starts  # type: ignore[attr-defined]
        return function

    return mark(method) if method is not None else mark


class Reactions(Struct, frozen=True):
    """A saga class taken apart: its reactions and state changes by message class, and the classes that start it."""

    saga: type[Saga]
    react: dict[type, Callable[..., Any]]
    evolve: dict[type, Callable[..., Any]]
    starts: frozenset[type]


def reactions_of(saga: type[Saga]) -> Reactions:
    """Take a saga class apart; DeclarationError where it cannot work."""
    if not saga.__key__:
        raise DeclarationError(f"class {saga.__name__}(Saga, key=…): name the field of its events that holds its key")
    field_types(saga)
    react_by, evolve_by = methods_by_type(saga, "__reacts__"), methods_by_type(saga, "__evolves__")
    for message in {*react_by, *evolve_by} - {Refused}:
        if saga.__key__ not in {name for base in message.__mro__ for name in vars(base).get("__annotations__", {})}:
            raise DeclarationError(f"{message.__name__} has no field {saga.__key__!r}, the key of {saga.__name__}")
    starts = frozenset(message for message, method in react_by.items() if getattr(method, "__starts__", False))
    if not starts:
        raise DeclarationError(f"{saga.__name__} never starts: mark one reaction with @react(starts=True)")
    return Reactions(saga, react_by, evolve_by, starts)
