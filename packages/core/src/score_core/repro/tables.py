"""The rows of all installed paper packages, read from the ``tables.yaml`` inside each."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import resources
from importlib.util import find_spec
from typing import Any

import yaml

from score_core.errors import UsageError
from score_core.repro.checks import TableError
from score_core.repro.schema import Row, parse_rows

PACKAGES = ("ncsn", "ncsnv2", "score_sde", "variational_sde", "score_flow_hdsm")


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one where libyaml is present


class _Loader(_SafeLoader):
    """The safe loader, which also refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]  # `<<` fills in what is not given
        keys = [self.construct_object(key, deep=True) for key in own]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_table(text: str, *, package: str, source: str) -> tuple[Row, ...]:
    """The validated rows in the YAML ``text`` of ``package``; ``source`` is how messages call it.

    Raises:
        TableError: the text is no YAML, or breaks the schema.
    """
    try:
        rows = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise TableError(f"{source} is not valid YAML: {error}") from error
    return parse_rows(rows, package=package, source=source)


def load_package(package: str) -> tuple[Row, ...]:
    """The rows of one paper package; none if it is not installed or has no tables yet."""
    if find_spec(package) is None:
        return ()
    file = resources.files(package).joinpath("tables.yaml")
    if not file.is_file():
        return ()
    return parse_table(file.read_text("utf-8"), package=package, source=f"{package}/tables.yaml")


def load_all() -> tuple[Row, ...]:
    """The rows of every installed paper package."""
    return tuple(row for package in PACKAGES for row in load_package(package))


def find_row(rows: Iterable[Row], row_id: str) -> Row:
    """The row with this id.

    Raises:
        UsageError: there is none; the message lists the closest ids.
    """
    by_id = {row.id: row for row in rows}
    if row_id in by_id:
        return by_id[row_id]
    close = get_close_matches(row_id, by_id, n=4, cutoff=0.5) or [i for i in by_id if row_id in i][:4]
    cure = f"Close ids: {', '.join(close)}." if close else "`repro list` prints all ids."
    raise UsageError(f"There is no row {row_id!r}. {cure}")
