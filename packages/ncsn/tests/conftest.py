"""Configurations as the original reads them."""

from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def config_of():
    """``config_of(section={"key": value})``: a nested namespace."""

    def make(**sections: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**{name: SimpleNamespace(**values) for name, values in sections.items()})

    return make
