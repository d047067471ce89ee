"""A real browser: Chromium without a window, driven through chromedriver's HTTP interface (W3C WebDriver)."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One window. Scripts are JavaScript function bodies that ``return`` a JSON value."""

    def __init__(self, driver: str, program: str, profile: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._server = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._await_driver()
            options = {"binary": program, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{session['sessionId']}"
        except BaseException:
            self._driver.kill()
            raise

    def _await_driver(self) -> None:
        for _ in range(300):
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        raise TimeoutError("chromedriver does not answer")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            self._ask("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=20)

    def open(self, file: Path, fragment: str = "") -> None:
        """Open a file, and forget what the console said before."""
        self._ask("POST", f"{self._session}/url", {"url": "about:blank"})
        self.console()
        self._ask("POST", f"{self._session}/url", {"url": file.resolve().as_uri() + fragment})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns; ``arguments[k]`` are the further arguments."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def developer(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int, *, mobile: bool = False, dots: float = 1) -> None:
        """The window's size in CSS pixels."""
        size = {"width": width, "height": height, "mobile": mobile, "deviceScaleFactor": dots}
        self.developer("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, **features: str) -> None:
        """What the reader prefers, ``color_scheme="dark"``; without arguments the defaults."""
        named = [{"name": f"prefers-{key.replace('_', '-')}", "value": value} for key, value in features.items()]
        self.developer("Emulation.setEmulatedMedia", features=named)

    def console(self) -> list[str]:
        """What the console said since the last call."""
        return [entry["message"] for entry in self._ask("POST", f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._ask("GET", f"{self._session}/screenshot"))

    def pdf(self) -> bytes:
        """The page printed on A4."""
        paper = {"page": {"width": 21.0, "height": 29.7}, "background": False}
        return base64.b64decode(self._ask("POST", f"{self._session}/print", paper))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, started once."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(
            "no Chromium on this machine: the report is not tested in a browser (Debian: chromium chromium-driver)"
        )
    browser = Browser(driver, program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """A desktop window whose reader has no preferences."""
    chromium.resize(1280, 900)
    chromium.prefer()
    return chromium
