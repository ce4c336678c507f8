"""Fixtures that more than one test folder uses: real clips, and a browser to look at pages."""

import base64
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

# Video files, encoded bytes and golden values that are too large for the repository.
SHARED = pathlib.Path(
    os.environ.get("ZOO_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared")
)


def pytest_configure() -> None:
    """Shells start background jobs deaf to SIGINT, which those that tests interrupt inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Outside of tests/kernels most time goes to the compiler: less if it optimises less.

    The longer sweeps of whole runs and the reference logits compile as users do. A process that a
    test starts inherits the choice.
    """
    parts = item.path.parts
    quick = not (
        "kernels" in parts
        or ("experiments" in parts and item.get_closest_marker("slow"))
        or "golden" in getattr(item, "fixturenames", ())
    )
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real clips beside the checkout; the test is skipped where it is absent."""
    if not (SHARED / "videos").is_dir():
        pytest.skip(f"{SHARED}/videos is absent: set ZOO_SHARED to the folder of real clips")
    return SHARED


class Browser:
    """Headless Chromium, driven through its debugging pipe (NUL-terminated JSON)."""

    def __init__(self, program: str, profile: pathlib.Path) -> None:
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--remote-debugging-pipe", "--hide-scrollbars", f"--user-data-dir={profile}",
        ]  # fmt: skip
        # The browser reads descriptor 3 and writes descriptor 4. Both pipe ends are copied before
        # either number is overwritten.
        start = (
            "import os, sys; a, b = (os.dup(int(n)) for n in sys.argv[1:3]); "
            "a, b = (os.dup(n) if n in (3, 4) else n for n in (a, b)); "
            "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, str(read_commands), str(write_answers), program, *flags],
            pass_fds=(read_commands, write_answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._number, self._buffer = itertools.count(1), b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        """Opens the one page that all tests use."""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
        number = next(self._number)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(
        self,
        page: pathlib.Path,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        reduced_motion: bool = False,
    ) -> None:
        """Loads a page in a window of that size and waits until it has loaded."""
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if reduced_motion else "no-preference",
        }
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        self.until('document.readyState === "complete" && location.protocol === "file:"')

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 30.0) -> None:
        """Waits until a JavaScript condition holds."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Errors and warnings that the page has caused so far."""
        self.evaluate("0")
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"):
                found.append(json.dumps(parameters))
            if method == "Runtime.consoleAPICalled" and parameters["type"] != "log":
                found.append(json.dumps(parameters))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, without those that hold their own content."""
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        urls = [parameters["request"]["url"] for parameters in sent]
        return [url for url in urls if not url.startswith("data:")]

    def picture(self, path: pathlib.Path) -> None:
        """Writes the whole page as a PNG file."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("neither chromium nor google-chrome is installed: pages are not looked at")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
