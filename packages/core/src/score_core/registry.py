"""Explicit tables from names to classes, which users extend by a decorator (``register_predictor`` and its kin)."""

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

__all__ = ["lookup", "register"]

C = TypeVar("C", bound=Callable[..., Any])


def register(table: MutableMapping[str, Any], kind: str, cls: C | None, name: str | None) -> C | Callable[[C], C]:
    """Enter a class into ``table``; the body of a decorator that works with and without arguments.

    Arguments:
        table: names in lower case to classes.
        kind: what the table holds, for messages ("predictor").
        cls: the class, or None where the decorator was called with arguments.
        name: the name to enter it under, in any case; the class's own name by default.

    Raises:
        ValueError: the name is taken by another class. (A class defined again, as when its file is run twice or its
            notebook cell edited, takes the place of its predecessor.)
    """

    def enter(new: C) -> C:
        key = (name or new.__name__).lower()
        if key in table and not _is_redefinition(table[key], new):
            raise ValueError(
                f"A {kind} named {key!r} is already registered ({table[key].__qualname__}); "
                f"give the new one another name: @register_{kind}(name=...)."
            )
        table[key] = new
        return new

    return enter if cls is None else enter(cls)


def _is_redefinition(old: Any, new: Any) -> bool:
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)


def lookup(table: MutableMapping[str, C], kind: str, name: str) -> C:
    """The class entered under ``name`` (any case).

    Raises:
        ValueError: there is none; the message lists the known names.
    """
    try:
        return table[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown {kind} {name!r}; known: {', '.join(sorted(table))}.") from None
