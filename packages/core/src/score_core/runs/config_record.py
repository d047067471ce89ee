"""Configurations as data: plain form, a hash that does not depend on order or container, a readable difference.

The plain form is nested dicts, lists, strings, numbers, booleans and None. Two values are the same if they are equal as
numbers (``1`` and ``1.0``), a tuple is a list, and ``True`` is not ``1``.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from os import PathLike, fspath
from typing import Any

from score_core.errors import UsageError

__all__ = ["Change", "compare_configs", "config_hash", "plain_config"]

_ABSENT = object()


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration in plain form.

    Arguments:
        config: a mapping, or an object with ``to_dict()`` such as ``ml_collections.ConfigDict``; leaves may be tuples,
            paths, NumPy numbers and arrays.

    Raises: UsageError naming a key whose value has no plain form (a device, a function).
    """
    plain = _plain(config, "")
    if not isinstance(plain, dict):
        raise UsageError(f"a configuration is a mapping of keys, found a {type(config).__name__}")
    return plain


def config_hash(config: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of a configuration's plain form; the same for equal configurations."""
    return sha256(_text(_canonical(plain_config(config))).encode()).hexdigest()


@dataclass(frozen=True)
class Change:
    """A key whose value differs between two configurations; ``str()`` is one line for people."""

    key: str
    old: Any
    new: Any

    def grows(self) -> bool:
        """Whether both values are numbers and the new one is larger."""
        return all(isinstance(value, (int, float)) for value in (self.old, self.new)) and self.new > self.old

    def matches(self, patterns: Collection[str]) -> bool:
        """Whether the key is one of ``patterns`` (``training.log_freq``, ``eval.*``)."""
        return any(fnmatchcase(self.key, pattern) for pattern in patterns)

    def __str__(self) -> str:
        old, new = ("(absent)" if value is _ABSENT else _text(value) for value in (self.old, self.new))
        return f"{self.key}: {old} -> {new}"


def compare_configs(old: Any, new: Any) -> list[Change]:
    """The keys (dotted) in which ``new`` differs from ``old``, in alphabetical order."""
    before, after = dict(_leaves(plain_config(old))), dict(_leaves(plain_config(new)))
    changes: list[Change] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was is _ABSENT or now is _ABSENT or _text(_canonical(was)) != _text(_canonical(now)):
            changes.append(Change(key, was, now))
    return changes


def _plain(value: Any, key: str) -> Any:
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): _plain(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # NumPy, without importing it
        return _plain(value.tolist(), key)
    raise UsageError(
        f"the configuration key {key!r} holds a {type(value).__name__} ({value!r:.60}), which cannot be recorded: "
        "use numbers, strings, booleans, None, lists and dicts"
    )


def _leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
