"""A video from a pipe: what is seen, what is dropped, what is said of broken ones."""

import contextlib
import json
import os
import subprocess
import threading
import time

import jax
import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import streaming, video
from zoo.tasks.live import Latencies, Live, LiveClassifier
from zoo.video import ffmpeg
from zoo.video.ffmpeg import Pipe

MODEL = "cnn_small_shift.moving_shapes"


@pytest.fixture(scope="module")
def pretrained():
    return zoo.load_pretrained(MODEL)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds at 25 frames a second in Matroska, and its bytes."""
    path = tmp_path_factory.mktemp("live") / "film.mkv"
    # MP4 that was cut short is not read at all; Matroska is, up to there.
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (50, 9, 16, 3)).astype(np.uint8)
    whole = video.encode(coarse.repeat(8, 1).repeat(8, 2), fps=25)
    command = [ffmpeg.executable(), "-loglevel", "error", "-i", "-", "-c", "copy", str(path)]
    subprocess.run(command, input=whole, check=True)
    return path, path.read_bytes()


@pytest.fixture
def piped():
    """A function that gives the end of a pipe to which a thread writes bytes."""
    ends, threads = [], []

    def make(content: bytes) -> int:
        reader, writer = os.pipe()

        def write():
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
                file.write(content)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        ends.append(reader)
        return reader

    yield make
    for end in ends:
        os.close(end)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_every_frame_is_seen_in_constant_memory(pretrained, film, piped):
    """The classes are those of the sliding window on the frames that `decode` gives."""
    path, content = film
    spec = pretrained.spec
    classifier = LiveClassifier(pretrained, fps=25, seconds=0.4, top=10)
    held = classifier.state_bytes
    with Live(Pipe(piped(content)), classifier) as live:
        moments = list(live)
    assert [m.number for m in moments] == list(range(50)) and live.dropped == 0
    assert [m.time for m in moments] == pytest.approx(np.arange(50) / 25)
    assert live.latencies.count == 50 and classifier.state_bytes == held
    window = streaming.SlidingWindow(pretrained.model, spec.frames, round(10 / spec.frames))
    clip = video.decode(path, size=(classifier.view.size)).frames / 255.0
    edge = (clip.shape[1] - spec.size) // 2
    clip = clip[:, edge : edge + spec.size, edge : edge + spec.size]
    clip = ((clip - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32)[None]
    state = window.init_state(1, spec.size, spec.size)
    logits, _ = streaming.scan(window, pretrained.variables, clip, state)
    odds = np.exp(np.asarray(logits)[0])
    expected = odds / odds.sum(1, keepdims=True)
    for moment, row in zip(moments, expected, strict=True):
        found = {guess.name: guess.probability for guess in moment.top}
        assert [found[name] for name in spec.classes] == pytest.approx(row, abs=1e-4)


def test_what_a_slow_model_misses_is_counted(film, piped):
    class Slow:
        view = video.stream.View((8, 8))

        def __call__(self, frame, at):
            time.sleep(0.1)
            return ()

    with Live(Pipe(piped(film[1])), Slow(), drop=True) as live:
        numbers = [moment.number for moment in live]
    assert len(numbers) + live.dropped == 50 and live.dropped > 10
    assert numbers == sorted(set(numbers)) and numbers[-1] == 49


def test_a_stream_model_can_start_again(pretrained):
    causal = zoo.create_model("cnn_small_shift", shift_causal=True, num_classes=10)
    spec = pretrained.spec
    # Drawn ones, for the trained ones would be sure of everything.
    variables = jax.jit(causal.init)(jax.random.key(0), np.zeros((1, 2, spec.size, spec.size, 3)))
    made = pretrained._replace(model=causal, variables=variables)
    frames = np.random.default_rng(0).integers(0, 256, (4, spec.size, spec.size, 3), np.uint8)
    on, again = LiveClassifier(made, top=10), LiveClassifier(made, top=10, restart=1.0)
    first = [on(frame, k / 2) for k, frame in enumerate(frames)]
    second = [again(frame, k / 2) for k, frame in enumerate(frames)]
    assert first[:2] == second[:2] and first[2:] != second[2:]
    assert second[2] == LiveClassifier(made, top=10)(frames[2], 0.0)


def test_command(monkeypatch, capsys, film, piped):
    def run(content: bytes, *arguments: str):
        with os.fdopen(piped(content), closefd=False) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            status = command_line.main(["classify", "-", "--model", MODEL, *arguments])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    status, lines, err = run(film[1], "--fps", "5", "--json")
    assert status == 0 and "10 frames, 0 dropped" in err
    assert [json.loads(line)["time"] for line in lines] == pytest.approx(np.arange(10) / 5)
    status, lines, err = run(film[1][:-3000], "--fps", "5")
    assert (
        status == 3 and "it ended early: standard input" in err and lines[0].startswith("     0.00")
    )
    status, lines, err = run(b"no video" * 100, "--fps", "5")
    assert status == 3 and not lines and "0 frames" in err
    assert run(film[1])[0] == 2  # How many frames a second has to be said for this model.
    assert run(film[1], "--out", "x")[0] == 2
    assert command_line.main(["classify", "x.mp4", "--model", MODEL, "--fps", "5"]) == 2


def test_quantiles():
    latencies = Latencies()
    assert latencies.quantile(0.5) == 0
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    assert latencies.quantile(0.5) == pytest.approx(0.5, rel=0.03)
    assert latencies.quantile(0.99) == pytest.approx(0.99, rel=0.03)
