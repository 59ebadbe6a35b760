"""Versioned forward migrations: a component's tables are at version n when its first n scripts have run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater import fault
from headwater.adapters.postgres.schema import TABLES
from headwater.adapters.postgres.statement import Plan, Statement
from headwater.errors import ConfigurationError, SchemaMismatch

REGISTER: Final = """
CREATE SCHEMA headwater;
CREATE TABLE headwater.schema_versions (
    component text NOT NULL, version integer NOT NULL, applied bigint NOT NULL, PRIMARY KEY (component, version)
);

CREATE FUNCTION headwater.expect(touched bigint, wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF touched <> wanted THEN
        RAISE EXCEPTION 'another process was faster' USING ERRCODE = 'HW001';
    END IF;
END $$;
"""
LOCK: Final = Statement("SELECT pg_advisory_xact_lock(%s, %s)", TABLES)
THERE: Final = Statement(
    "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'headwater' AND tablename = 'schema_versions')"
)
VERSIONS: Final = Statement("SELECT component, max(version) FROM headwater.schema_versions GROUP BY component")
APPLIED: Final = "INSERT INTO headwater.schema_versions VALUES (%s, %s, %s)"
DURABLE: Final = Statement("SELECT current_setting('synchronous_commit')")


def migrating(place: str, component: str, scripts: Sequence[str], now: int, *, upgrade: bool = False) -> Plan[bool]:
    """Make the tables of a component, or check that they are at the newest version; whether there was anything to make.

    A database where the component is new is always given its tables; one of an older version only if `upgrade` says so.
    Raises SchemaMismatch. `now` is in microseconds.
    """
    ((durable,),), ((there,),) = yield [DURABLE, THERE]
    if durable == "off":
        raise ConfigurationError(
            f"{place} has synchronous_commit off, so that what is answered could be lost: "
            "ALTER ROLE … SET synchronous_commit = on"
        )
    found = (yield from versions()).get(component, 0) if there else 0
    if found == len(scripts):
        return False
    _check(place, component, found, len(scripts), upgrade)
    yield from _apply(component, scripts, now)
    return True


def checking(place: str, component: str, scripts: Sequence[str]) -> Plan[None]:
    """Check, where nothing can be made, that the tables of a component are at the newest version. Raises SchemaMismatch."""
    (((there,),),) = yield [THERE]
    found = (yield from versions()).get(component, 0) if there else 0
    if not found:
        raise SchemaMismatch(f"{place} is a replica and has no tables of {component} yet: open its primary first")
    if found != len(scripts):
        _check(place, component, found, len(scripts), upgrade=False)


def _apply(component: str, scripts: Sequence[str], now: int) -> Plan[None]:
    _, ((there,),) = yield [LOCK, THERE]
    if not there:
        yield [Statement(one) for one in split(REGISTER)]
    fault.point("migration.begun")
    found = (yield from versions()).get(component, 0)
    for version, script in enumerate(scripts[found:], found + 1):
        yield [*map(Statement, split(script)), Statement(APPLIED, (component, version, now))]
    fault.point("migration.applied")


def versions() -> Plan[dict[str, int]]:
    """The version that each component's tables are at."""
    (found,) = yield [VERSIONS]
    return dict(found)


def _check(place: str, component: str, found: int, newest: int, upgrade: bool) -> None:
    if found > newest:
        raise SchemaMismatch(f"{place} is at {component} version {found}, and we know {newest}: upgrade headwater")
    if found and not upgrade:
        raise SchemaMismatch(f"{place} is at {component} version {found} of {newest}: run `headwater db upgrade`")


def split(script: str) -> list[str]:
    """The statements of a script; a function's body between `$$` stays whole."""
    found: list[str] = []
    begun = ""
    for part in script.split(";\n"):
        begun = f"{begun};\n{part}" if begun else part
        if begun.count("$$") % 2 == 0:
            found.append(begun.strip())
            begun = ""
    return [one for one in found if one]
