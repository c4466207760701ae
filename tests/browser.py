"""A headless Chromium driven over the WebDriver protocol by the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium with its chromedriver is installed (Debian: chromium, chromium-driver)"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element, by the W3C's WebDriver
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


@dataclass(frozen=True)
class Browser:
    """One window; elements are named by their CSS selector, the first that matches is meant."""

    session: str

    def open(self, page: Path) -> None:
        self._send("POST", "/url", url=page.resolve().as_uri())

    def script(self, text: str) -> Any:
        """What a script returns."""
        return self._send("POST", "/execute/sync", script=text, args=[])

    def click(self, selector: str) -> None:
        self._send("POST", f"/element/{self._find(selector)}/click")

    def press(self, selector: str, keys: str) -> None:
        self._send("POST", f"/element/{self._find(selector)}/value", text=keys)

    def drag(self, selector: str, start: float, stop: float) -> None:
        """Drags the pointer across an element, from one share of its width to another."""
        self.script(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        element = self._find(selector)
        wide = self._send("GET", f"/element/{element}/rect")["width"]
        places = [{"x": round((share - 0.5) * wide), "y": 0, "origin": {_ELEMENT: element}} for share in (start, stop)]
        moves = [{"type": "pointerMove", "duration": 50, **place} for place in places]
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        pointer = {"type": "pointer", "id": "mouse", "actions": [moves[0], down, moves[1], up]}
        self._send("POST", "/actions", actions=[pointer])

    def resize(self, width: int, height: int) -> None:
        """Gives the page a size in pixels, as a telephone of that size would."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._command("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        """Makes the system prefer `light` or `dark`."""
        self._command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [str(entry["message"]) for entry in self._send("POST", "/se/log", type="browser")]

    def picture(self) -> bytes:
        """A screenshot, PNG."""
        return base64.b64decode(self._send("GET", "/screenshot"))

    def _find(self, selector: str) -> str:
        found = self._send("POST", "/element", using="css selector", value=selector)
        return str(found[_ELEMENT])

    def _command(self, name: str, parameters: dict[str, Any]) -> None:
        self._send("POST", "/goog/cdp/execute", cmd=name, params=parameters)

    def _send(self, method: str, path: str, **values: Any) -> Any:
        return ask(f"{self.session}{path}", method, values)


def ask(address: str, method: str, values: dict[str, Any]) -> Any:
    """The driver's answer to one request; raises AssertionError with what it says against it."""
    body = json.dumps(values).encode() if method == "POST" else None
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(json.load(error)["value"]["message"].splitlines()[0]) from error


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile; it is closed at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _driver(profile) as address:
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}/chromium"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = ask(f"{address}/session", "POST", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Browser(f"{address}/session/{session}")
        finally:
            ask(f"{address}/session/{session}", "DELETE", {})


@contextmanager
def _driver(folder: str) -> Iterator[str]:
    """The address of a driver at a free port."""
    with Path(folder, "driver.log").open("w", encoding="utf-8") as errors:
        command = [str(DRIVER), "--port=0"]
        environment = os.environ | {"HOME": folder}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        with process:
            try:
                lines = iter(process.stdout.readline, "") if process.stdout else iter(())
                port = next(match[1] for line in lines if (match := re.search(r"successfully on port (\d+)", line)))
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
