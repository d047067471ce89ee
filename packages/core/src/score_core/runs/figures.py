"""Pictures that an experiment draws of its results, with the words that a report puts to them."""

import io
import json
from pathlib import Path
from typing import Any

from score_core.checkpoints.atomic import atomic_write

__all__ = ["png_of", "save_figure"]


def png_of(figure: Any) -> bytes:
    """A matplotlib figure as PNG on white, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def save_figure(file: Path, png: bytes, alt: str, caption: str) -> None:
    """Writes ``file`` (.png) and beside it, as .json, its text alternative and caption."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, png)
    atomic_write(file.with_suffix(".json"), (json.dumps({"alt": alt, "caption": caption}, indent=2) + "\n").encode())
