"""Which parts of a service a process runs: all of it, only some read models, sagas and handlers, or all without them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from headwater.errors import ConfigurationError


class Parts(Struct, frozen=True):
    """Parts by their stored names, without the service; with `only` nothing but these runs, also no relay and no timers."""

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def run(self, name: str) -> bool:
        """Whether a part runs here."""
        return name in self.only if self.only else name not in self.without

    def check(self, service: str, fed: Mapping[str, frozenset[str]]) -> None:
        """Refuse names that a service cannot run apart; `fed` gives the topics of each of its parts. Raises ConfigurationError."""
        if self.only and self.without:
            raise ConfigurationError(
                "--only and --without exclude each other: say which parts run here, or which do not"
            )
        for name in sorted(self.only | self.without):
            if name not in fed:
                raise ConfigurationError(f"{service} has no part {name!r}; its parts are: {', '.join(sorted(fed))}")
            if fed[name]:
                raise ConfigurationError(
                    f"{service}.{name} takes from {', '.join(sorted(fed[name]))} together with the rest of {service}: "
                    "only what is fed by the service's own log can run apart"
                )
