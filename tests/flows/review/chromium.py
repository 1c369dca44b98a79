"""Headless Chromium driven through its DevTools protocol, with nothing but `websockets`."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_SECONDS = 40.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank",
)  # fmt: skip
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13, "Escape": 27, " ": 32}


class Page:
    """One tab: it opens addresses, presses keys and says what is seen."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=64 << 20, open_timeout=_SECONDS, ping_interval=None)
        self._ids = itertools.count(1)
        self.log: list[str] = []
        """Errors of scripts, refused contents and failed requests."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": values}))
        end = time.monotonic() + _SECONDS
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, end - time.monotonic())))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.log.append(str(details.get("exception", {}).get("description", details["text"])))
            case "Log.entryAdded":
                entry = message["params"]["entry"]
                self.log.append(f"{entry['source']}: {entry['text']}")
            case "Page.javascriptDialogOpening":
                self.log.append(f"dialog: {message['params']['message']}")

    def size(self, width: int, height: int, touch: bool = False) -> None:
        """Make the window so large, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )

    def dark(self, wanted: bool) -> None:
        """Prefer dark or light colours."""
        value = "dark" if wanted else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = _SECONDS) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, (script, self.text("body"), self.log)
            time.sleep(0.02)
        return found

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def middle(self, selector: str) -> dict[str, float]:
        """Where the middle of an element is."""
        x, y = self.run(
            f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        return {"x": x, "y": y}

    def wheel(self, selector: str, steps: float) -> None:
        """Turn the wheel over the middle of an element."""
        at = self.middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseWheel", **at, deltaX=0, deltaY=steps)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        at = self.middle(selector)
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, **at, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write a picture of what is seen."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Leave the tab."""
        self._socket.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own for the length of a block."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-") as folder:
        process = subprocess.Popen(
            [CHROMIUM, f"--user-data-dir={folder}", *_FLAGS],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield Browser(_port(Path(folder, "DevToolsActivePort"), process))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """A running Chromium; every page has cookies and storage of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    def page(self) -> Page:
        """A new tab that shares nothing with others."""
        with urlopen(f"http://127.0.0.1:{self._port}/json/version") as answer:
            whole = Page.__new__(Page)
            from websockets.sync.client import connect

            whole._socket = connect(
                json.load(answer)["webSocketDebuggerUrl"], max_size=64 << 20, ping_interval=None
            )
        whole._ids, whole.log = itertools.count(1), []
        context = whole.call("Target.createBrowserContext")["browserContextId"]
        target = whole.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Page(f"ws://127.0.0.1:{self._port}/devtools/page/{target}")


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "Chromium ended"
        with suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
