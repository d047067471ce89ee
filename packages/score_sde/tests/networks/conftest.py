"""The official configs as resolved in the golden file, so that these tests do not depend on the config package."""

from typing import Any

import goldens
import ml_collections
import pytest


@pytest.fixture(scope="session")
def official_config():
    """``official_config("ve/cifar10_ncsnpp.py", {"model.nf": 16})`` -> ConfigDict."""
    resolved = goldens.load("score_sde", "configs.json")

    def make(name: str, overrides: dict | None = None) -> ml_collections.ConfigDict:
        config: Any = ml_collections.ConfigDict(resolved[f"configs/{name}"])
        with config.unlocked():
            for key, value in (overrides or {}).items():
                section, entry = key.split(".")
                config[section][entry] = value
        return config

    return make
