"""Data for training and evaluation, the same for both frameworks: sources, preprocessing, one pipeline."""

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
    "save_png",
    "to_float",
    "to_uint8",
]
