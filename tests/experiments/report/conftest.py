"""Run folders as training leaves them, and a browser to look at their reports."""

import base64
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from experiments import config, metrics

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow", "crescent", "hexagon"
)  # fmt: skip


def class_names(number: int) -> list[str]:
    """Names of as many classes as wanted."""
    if number == 2:
        return ["fight", "noFight"]
    return [*SHAPES, *(f"Action number {i}" for i in range(number))][:number]


def clips(number: int, size: int = 72, frames: int = 16) -> list[bytes]:
    """MP4 files of a bright square that goes around on a textured ground."""
    from zoo.video import encode_many

    generator = np.random.default_rng(0)
    films = []
    for i in range(number):
        ground = generator.integers(30, 110, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
        film = np.repeat(ground[None], frames, 0).astype(np.uint8)
        for t in range(frames):
            angle = 2 * np.pi * (t / frames + i / number)
            y, x = (int(size / 2 + size / 4 * f(angle)) - 9 for f in (np.sin, np.cos))
            film[t, y : y + 18, x : x + 18] = (240, 60 + 15 * (i % 12), 200 - 15 * (i % 12))
        films.append(film)
    return encode_many(films, fps=16)


def make_run(
    folder: pathlib.Path,
    *,
    classes: int = 10,
    epochs: int = 10,
    finished: bool = True,
    tested: int = 400,
    accuracy: float = 0.9,
    examples: int = 12,
    seed: int = 0,
) -> pathlib.Path:
    """A run folder with every file that the report reads."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.dumps(config.Config()))
    steps, lines, stages = 31, [], {}
    for epoch in range(epochs):
        for step in range(3, steps + 1, 3):
            at = epoch + step / steps
            noisy = float(np.log(classes) * np.exp(-at / 2) + generator.gamma(2, 0.02))
            lines.append(
                {
                    "step": epoch * steps + step,
                    "epoch": epoch,
                    "step/loss": noisy,
                    "step/top1": float(np.clip(np.exp(-noisy) + generator.normal(0, 0.03), 0, 1)),
                    "step/rate": 1e-3,
                }
            )
        loss = float(np.log(classes) * np.exp(-(epoch + 1) / 2.2))
        worse = loss * 1.1 + 0.08 + 0.02 * float(generator.random())
        stages = {
            "stage/wait for input": 0.4 + 0.05 * epoch,
            "stage/transfer": 0.1 * (epoch + 1),
            "stage/step": 6.0 + 9.1 * (epoch + 1),
            "stage/val": 0.8 * (epoch + 1),
            "stage/checkpoint": 0.3 * (epoch + 1),
            "input/read": 0.2 * (epoch + 1),
            "input/decode": 4.1 * (epoch + 1),
            "input/wait": 3.0 * (epoch + 1),
        }
        lines.append(
            {
                "step": (epoch + 1) * steps,
                "epoch": epoch,
                "train/loss": loss,
                "train/top1": float(np.exp(-loss)),
                "val/loss": worse,
                "val/top1": float(np.exp(-worse)),
                "clips_per_second": 103.4,
                "seconds": 12.0 + 11.0 * (epoch + 1),
                **stages,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = class_names(classes)
    labels = np.arange(tested) % classes
    logits = generator.normal(0, 1, (tested, classes))
    right = generator.random(tested) < accuracy
    logits[np.arange(tested), np.where(right, labels, (labels * 7 + 3) % classes)] += 5
    result = metrics.evaluate(logits, labels, names)
    if finished:
        whole = {f"test/{key}": value for key, value in result.items()} | {
            "best/epoch": epochs,
            "val/top1": lines[-1]["val/top1"],
            "classes": names,
            "clips": {"train": 1000, "val": 200, "test": tested},
            "broken_files": 0,
            "parameters": 1_213_130,
            "views": 2,
            "seconds": 141.7,
            "stages": stages | {"stage/test": 3.1},
        }
        (folder / "metrics.json").write_text(json.dumps(whole))
    if examples and finished:
        write_examples(folder / "examples", names, logits, labels, examples)
    return folder


def write_examples(
    folder: pathlib.Path, names: list[str], logits: np.ndarray, labels: np.ndarray, number: int
) -> None:
    folder.mkdir()
    probabilities = metrics.softmax(logits)
    index = []
    for i, content in enumerate(clips(number)):
        best = np.argsort(-probabilities[i])[:3]
        (folder / f"{i:03d}.mp4").write_bytes(content)
        index.append(
            {
                "file": f"{i:03d}.mp4",
                "source": f"test/{names[labels[i]]}/clip_{i:05d}.mp4",
                "label": names[labels[i]],
                "prediction": names[best[0]],
                "probabilities": [[names[k], float(probabilities[i, k])] for k in best],
            }
        )
    (folder / "index.json").write_text(json.dumps(index))


@pytest.fixture
def run_folder(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Makes run folders; the arguments are those of `make_run`."""
    number = itertools.count()
    return lambda **options: make_run(tmp_path / f"cnn_small-{next(number):03d}", **options)


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
