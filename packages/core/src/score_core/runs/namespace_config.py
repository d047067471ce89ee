"""Configurations of NCSN and NCSNv2: YAML files read into nested ``argparse.Namespace`` and written as they wrote them.

The configurations that users write are plain YAML. Those that a run leaves in its log folder carry a tag at the root
and at every section:

    !!python/object:argparse.Namespace
    data: !!python/object:argparse.Namespace
      channels: 3

The reader knows this one tag and builds nothing else, so a file from elsewhere runs no code. Numbers such as ``1e-3``
are numbers here, while YAML 1.1 takes them for text.
"""

import argparse
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from score_core.errors import UsageError

__all__ = [
    "dump_namespace",
    "find_config",
    "load_namespace",
    "missing_keys",
    "parse_namespace",
    "to_dict",
    "to_namespace",
]

_TAG = "tag:yaml.org,2002:python/object:argparse.Namespace"
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """Plain YAML and the one tag."""


class _Dumper(yaml.SafeDumper):
    """Writes namespaces with their tag."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True  # a list used twice is written twice, not as a reference


def _construct(loader: _Loader, node: yaml.Node) -> argparse.Namespace:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "a section must be a mapping of keys", node.start_mark)
    return argparse.Namespace(**{str(k): v for k, v in loader.construct_mapping(node, deep=True).items()})


_Loader.add_constructor(_TAG, _construct)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_representer(
    argparse.Namespace, lambda dumper, value: dumper.represent_mapping(_TAG, vars(value), flow_style=False)
)


def find_config(name: str, packaged: Path) -> Path:
    """The configuration file that ``--config`` names.

    Arguments:
        name: a path, or a file name in the folder ``configs`` of the working folder or in ``packaged``; with or without
            the ending ``.yml``.
        packaged: folder of the configurations that come with the package.

    Raises: UsageError listing the packaged ones.
    """
    names = [name] if Path(name).suffix in (".yml", ".yaml") else [name, f"{name}.yml"]
    for folder in (Path("configs"), packaged, Path()):
        for candidate in (folder / each for each in names):
            if candidate.is_file():
                return candidate
    known = ", ".join(sorted(file.name for file in packaged.glob("*.yml")))
    raise UsageError(f"no configuration {name!r}: there is no such file here, in configs/, nor packaged ({known}).")


def load_namespace(path: str | os.PathLike[str]) -> argparse.Namespace:
    """A configuration file, plain or tagged, as nested namespaces.

    Raises: UsageError if it cannot be read, is no YAML mapping, or holds other tags (which are not run).
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the configuration {path}: {error}. Check the file.") from error
    return parse_namespace(text, where=str(path))


def parse_namespace(text: str, *, where: str = "the configuration") -> argparse.Namespace:
    """:func:`load_namespace` of text; ``where`` is what errors call it."""
    try:
        content = yaml.load(text, Loader=_Loader)  # our own safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not a configuration in YAML: {error}") from error
    if not isinstance(content, (dict, argparse.Namespace)):
        raise UsageError(f"{where} holds {type(content).__name__}, expected sections with keys (data:, model:, ...).")
    return to_namespace(to_dict(content))


def dump_namespace(config: argparse.Namespace | Mapping[str, Any]) -> str:
    """The YAML text of a configuration: block style, sorted keys, tags at the namespaces (a plain mapping has none)."""
    return yaml.dump(config, Dumper=_Dumper, default_flow_style=False)


def to_namespace(config: Any) -> Any:
    """Nested mappings as nested namespaces; lists and scalars as they are."""
    if isinstance(config, Mapping):
        return argparse.Namespace(**{str(key): to_namespace(value) for key, value in config.items()})
    return config


def to_dict(config: Any) -> Any:
    """Nested namespaces as nested dicts; lists and scalars as they are."""
    if isinstance(config, argparse.Namespace):
        config = vars(config)
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    return config


def missing_keys(config: argparse.Namespace, keys: Iterable[str]) -> list[str]:
    """Those of the dotted ``keys`` (``training.n_iters``) that the configuration lacks."""

    def has(key: str) -> bool:
        section: Any = config
        for name in key.split("."):
            if not isinstance(section, argparse.Namespace) or not hasattr(section, name):
                return False
            section = getattr(section, name)
        return True

    return [key for key in keys if not has(key)]
