"""Checks of single values in a table file, and reading a mapping into a dataclass through them.

A field is annotated with its check, ``metric: Annotated[str, checks.name]``. A check takes the value found and returns
the value to store, or raises ``ValueError`` with what was expected. A field whose type allows None may be missing. A
field that is not annotated so is no key of the file: it is filled in later.
"""

import dataclasses
import re
from collections.abc import Callable
from difflib import get_close_matches
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from score_core.errors import UserError

Check = Callable[[Any], Any]
T = TypeVar("T")


class TableError(UserError):
    """A tables.yaml that breaks the schema; the message names the file, the row and the key."""


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text, which may be empty")
    return value


def name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", value):
        raise ValueError("a snake_case name such as bits_per_dim")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    return float(value)


def not_negative(value: Any) -> float:
    if number(value) < 0:
        raise ValueError("a number, 0 or more")
    return float(value)


def positive_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number, 1 or more")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("a mapping with text keys")
    return value


def texts(value: Any) -> dict[str, str]:
    return {key: text(entry) for key, entry in mapping(value).items()}


def entries(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list with at least one entry")
    return tuple(value)


def commands(value: Any) -> dict[str, str]:
    found = texts(value)
    if not found or not all(re.match(r"python -m \w", command) for command in found.values()):
        raise ValueError("a mapping of stage names to commands that begin with `python -m`")
    return found


def one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return check


def first_of(*checks: Check) -> Check:
    """A value that satisfies one of several checks, tried in order."""

    def check(value: Any) -> Any:
        expected = []
        for alternative in checks:
            try:
                return alternative(value)
            except ValueError as error:
                expected.append(str(error))
        raise ValueError(" or ".join(expected))

    return check


def strings(value: Any) -> tuple[str, ...]:
    return tuple(text(entry) for entry in entries(value))


def read(cls: type[T], raw: Any, where: str) -> T:
    """The dataclass ``cls`` from the mapping ``raw``; ``where`` begins every message.

    Raises:
        TableError: ``raw`` is no mapping, has an unknown key, lacks one, or has a value that fails its check.
    """
    if not isinstance(raw, dict):
        raise TableError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    hints = get_type_hints(cls, include_extras=True)
    names = [
        field.name
        for field in dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
        if get_origin(hints[field.name]) is Annotated
    ]
    for key in raw:
        if key not in names:
            close = get_close_matches(str(key), names, n=1)
            cure = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(names)}."
            raise TableError(f"{where}: unknown key {key!r}; {cure}")
    return cls(**{key: _value(hints[key], key, raw, where) for key in names})


def _value(hint: Any, key: str, raw: dict[str, Any], where: str) -> Any:
    """The checked value of ``key``, whose annotation ``hint`` is ``Annotated[type, check]``."""
    kind, check = get_args(hint)
    value = raw.get(key)
    if value is None and NoneType in get_args(kind):
        return None
    if key not in raw:
        raise TableError(f"{where}: {key} is missing.")
    try:
        return check(value)
    except ValueError as expected:
        raise TableError(f"{where}: {key} is {repr(value)[:80]}, expected {expected}.") from None
