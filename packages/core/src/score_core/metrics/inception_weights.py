"""Where the weights of the Inception network come from: a file named by the user, a cache, or, if allowed, the network.

The published file has two names and one content; both end in the first eight digits of its SHA-256, which are compared
before anything is read from it.
"""

import hashlib
import importlib
import logging
import os
import re
import sys
from pathlib import Path

from score_core.metrics.validation import MetricUsageError

__all__ = ["cache_folder", "read_weights"]

_logger = logging.getLogger(__name__)

VARIABLE = "SCORE_INCEPTION_WEIGHTS"
SHA256_PREFIX = "6726825d"
NAMES = (f"pt_inception-2015-12-05-{SHA256_PREFIX}.pth", f"weights-inception-2015-12-05-{SHA256_PREFIX}.pth")
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAMES[0]}"
MAX_BYTES = 10**9  # the file has 95 MB; what is larger is something else
_NAMED_HASH = re.compile(r"-([0-9a-f]{8})\.pth$")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/score_core``, else ``~/.cache/score_core``."""
    return _caches() / "score_core"


def read_weights(path: str | os.PathLike[str] | None = None, *, download: bool = False) -> tuple[bytes, str]:
    """The weights file's bytes and its name.

    Arguments:
        path: the file; default: ``$SCORE_INCEPTION_WEIGHTS``, else one of NAMES in :func:`cache_folder` or where
            PyTorch keeps its downloads (pytorch-fid puts it there).
        download: fetch the published file (95 MB) into the cache if there is none.

    Raises:
        MetricUsageError: no file, or one whose content does not fit the hash in its name.
    """
    named = path or os.environ.get(VARIABLE)
    file = Path(named) if named else _cached()
    if file is None and download:
        file = _download(cache_folder() / NAMES[0])
    if file is None or not file.is_file():
        place = f"{file} does not exist" if file is not None else f"not in {cache_folder()}"
        raise MetricUsageError(
            f"the weights of the Inception network are missing: {place}. Download {URL} (95 MB) to "
            f"{cache_folder() / NAMES[0]}, or name the file in the environment variable {VARIABLE}, with "
            "--config.eval.extractor_weights, or score-stats --weights; --config.eval.extractor_download=True and "
            "score-stats --download fetch it. The extractor 'digits' needs no file (--config.eval.extractor=digits, "
            "score-stats --extractor digits)"
        )
    try:
        if file.stat().st_size > MAX_BYTES:
            raise MetricUsageError(f"{file}: {file.stat().st_size} bytes, the weights have 95 MB; name another file")
        data = file.read_bytes()
    except OSError as error:
        raise MetricUsageError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    found = hashlib.sha256(data).hexdigest()
    expected = _NAMED_HASH.search(file.name)
    if expected and not found.startswith(expected[1]):
        raise MetricUsageError(
            f"{file}: damaged: SHA-256 {found[:8]}..., its name says {expected[1]}; delete it and fetch {URL} again"
        )
    if not found.startswith(SHA256_PREFIX):
        _logger.warning("%s is not the published file of weights: scores do not compare with published ones", file)
    return data, str(file)


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _cached() -> Path | None:
    hub = Path(os.environ.get("TORCH_HOME") or _caches() / "torch") / "hub" / "checkpoints"
    candidates = [folder / name for folder in (cache_folder(), hub) for name in NAMES]
    return next((file for file in candidates if file.is_file()), None)


def _download(target: Path) -> Path:
    """``target``, with the published file's content."""
    hub = importlib.import_module("torch.hub")
    _logger.info("fetching %s", URL)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Writes a temporary file and renames it once the hash is right.
        hub.download_url_to_file(URL, str(target), hash_prefix=SHA256_PREFIX, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError) as error:
        raise MetricUsageError(
            f"could not fetch {URL} ({error}); fetch it on a machine that can, and put it at {target}"
        ) from error
    return target
