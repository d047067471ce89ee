"""Finding a configuration file by its path or by its name.

Accepted, in this order:

1. the path of an existing python file, absolute or relative to the current directory;
2. the name of a packaged file, ``vp/cifar10_ddpmpp_continuous``, or its path in the original repository,
   ``configs/vp/cifar10_ddpmpp_continuous.py``;
3. the bare name of a packaged file when only one folder has it: ``digits``, ``ffhq_ncsnpp_continuous``.
"""

import difflib
from pathlib import Path, PurePosixPath

from score_core.errors import UsageError

_FOLDER = Path(__file__).parent


class ConfigError(UsageError):
    """A configuration that cannot be found, or is not one of this program."""


def list_configs(folder: Path = _FOLDER) -> list[str]:
    """The names of the experiments packaged in a folder, sorted, as ``resolve_config`` takes them."""
    files = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.py"))
    return sorted(name.as_posix() for name in files if _is_experiment(name))


def _is_experiment(name: Path) -> bool:
    return not name.name.startswith(("_", "default_")) and name.as_posix() not in ("resolve", "load")


def resolve_config(name_or_path: str, folder: Path = _FOLDER) -> Path:
    """The python file that ``name_or_path`` means, a path or the name of one packaged in ``folder``.

    Raises
        ConfigError: no file is meant, or several are; the message lists the closest names.
    """
    path = Path(name_or_path)
    if path.suffix == ".py" and path.is_file():
        return path
    name = PurePosixPath(name_or_path.removeprefix("./").removeprefix("configs/").removesuffix(".py")).as_posix()
    names = list_configs(folder)
    matches = [name] if name in names else [known for known in names if known.rsplit("/", 1)[-1] == name]
    if len(matches) == 1:
        return folder / f"{matches[0]}.py"
    if matches:
        raise ConfigError(f"The configuration name {name_or_path!r} is ambiguous; choose one of: {', '.join(matches)}.")
    raise ConfigError(_not_found(name_or_path, name, names))


def _not_found(given: str, name: str, names: list[str]) -> str:
    """The message for a name that nothing matches, with the closest ones by whole and by last component."""
    bare = {known.rsplit("/", 1)[-1]: known for known in reversed(names)}
    close = difflib.get_close_matches(name, names, n=4, cutoff=0.6)
    close += [bare[b] for b in difflib.get_close_matches(name.rsplit("/", 1)[-1], bare, n=4, cutoff=0.6)]
    if close:
        cure = f"Close names: {', '.join(dict.fromkeys(close))}."
    else:
        cure = f"Packaged configurations: {', '.join(names)}."
    return f"No configuration {given!r}: it is neither an existing python file nor a packaged configuration. {cure}"
