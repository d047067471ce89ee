"""One file from the network to its final name: checked, and never seen half written."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from score_core.data.errors import EMBEDDED_HINT, DataError

__all__ = ["download"]

_CHUNK = 1 << 20


def download(url: str, target: Path, md5: str) -> None:
    """Fetch ``url`` to ``target`` if its MD5 is the expected one.

    The bytes go to a temporary file beside ``target``, which is flushed and renamed once the checksum is right; on any
    failure it is removed. A progress bar is shown on a terminal.

    Raises:
        DataError: no connection, a server error, or another checksum.
    """
    by_hand = f"fetch {url} on a machine that can, and put it at {target}; {EMBEDDED_HINT}"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise DataError(f"cannot write to {target.parent} ({error}). Cure: choose another data folder.") from error
    try:
        with temporary.open("wb") as file:
            found = _copy(url, file)
            file.flush()
            os.fsync(file.fileno())
        if found != md5:
            raise DataError(f"{url} has MD5 {found}, expected {md5}; nothing was kept. Cure: try again, or {by_hand}.")
        os.replace(temporary, target)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the server's answer as well, with an open socket
        raise DataError(f"could not download {url} ({error}). Cure: {by_hand}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy(url: str, file: BinaryIO) -> str:
    from tqdm import tqdm

    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=60) as response:
        total = int(response.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1], disable=None) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()
