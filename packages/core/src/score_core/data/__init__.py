"""Data for training and evaluation, the same for both frameworks: sources, preprocessing, one pipeline.

The names below are loaded when first used, so that the help of the ``score-data`` command does not wait for NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from score_core.data.distances import max_pairwise_distance
    from score_core.data.errors import DataError, MissingDataError
    from score_core.data.images import image_grid, save_png, to_uint8
    from score_core.data.pipeline import Batch, Pipeline
    from score_core.data.prefetch import Prefetcher
    from score_core.data.scalers import dequantize, get_data_inverse_scaler, get_data_scaler, to_float
    from score_core.data.source import Source
    from score_core.data.sources import SOURCES, load_source

__all__ = [
    "SOURCES",
    "Batch",
    "DataError",
    "MissingDataError",
    "Pipeline",
    "Prefetcher",
    "Source",
    "dequantize",
    "get_data_inverse_scaler",
    "get_data_scaler",
    "image_grid",
    "load_source",
    "max_pairwise_distance",
    "save_png",
    "to_float",
    "to_uint8",
]

_HOMES = {
    "distances": ("max_pairwise_distance",),
    "errors": ("DataError", "MissingDataError"),
    "images": ("image_grid", "save_png", "to_uint8"),
    "pipeline": ("Batch", "Pipeline"),
    "prefetch": ("Prefetcher",),
    "scalers": ("dequantize", "get_data_inverse_scaler", "get_data_scaler", "to_float"),
    "source": ("Source",),
    "sources": ("SOURCES", "load_source"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # not asked again
    return value
