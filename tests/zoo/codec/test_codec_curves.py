"""Rates and qualities: BD-rate against values of other implementations, metrics on known cases."""

import json
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.codec import chart, curves, metrics, source, work

ANCHOR = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
TESTED = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]


def test_a_constant_factor_of_the_rate_is_found():
    more = [(1.25 * rate, quality) for rate, quality in ANCHOR]
    value, interval = curves.bd_rate(ANCHOR, more)
    assert value == pytest.approx(25, abs=1e-9)
    assert interval == (34.851, 40.037)


def test_bd_rate_is_that_of_the_bjontegaard_package():
    """Values of its version 1.3.0, method "pchip"."""
    assert curves.bd_rate(ANCHOR, TESTED)[0] == pytest.approx(-4.417485350589, abs=1e-9)
    low = [(400, 30.1), (800, 33.2), (1500, 36.4), (3100, 39.0)]
    other = [(300, 29.0), (700, 32.9), (1600, 36.9), (2900, 38.7)]
    assert curves.bd_rate(low, other)[0] == pytest.approx(-5.435685616936, abs=1e-9)


def test_curves_without_common_quality_or_order_are_refused():
    with pytest.raises(ValueError, match="no quality in common"):
        curves.bd_rate(ANCHOR, [(1.0, 10.0), (2.0, 12.0)])
    with pytest.raises(ValueError, match="rise with rates"):
        curves.bd_rate(ANCHOR, [(1.0, 36.0), (2.0, 35.0)])


def test_metrics_of_known_pictures():
    rng = np.random.default_rng(0)
    a = rng.integers(20, 230, (2, 96, 96)).astype(np.uint8)
    assert metrics.psnr(a, a, 8) == 100
    assert metrics.psnr(a, a + 1, 8) == pytest.approx(10 * np.log10(255**2))
    assert metrics.ms_ssim(a, a, 8) == pytest.approx(1)
    noisy = np.clip(a + rng.normal(0, 40, a.shape), 0, 255)
    assert 0 < metrics.ms_ssim(a, noisy, 8) < metrics.ms_ssim(a, a + 2, 8) < 1


def _curve(factor):
    return [
        curves.Point(0, 1, factor * rate, {"psnr_y": quality, "ms_ssim": quality / 41}, 1.0, 1.0)
        for rate, quality in ANCHOR
    ]


def test_curves_are_compared_and_their_mean_leaves_out_what_has_none():
    found = {name: _curve(1.0) for name in curves.LADDER} | {curves.OWN: _curve(1.1)}
    compared = curves.compared(found)
    assert compared["zvc to x264 medium"]["psnr_y"]["bd_rate"] == pytest.approx(10, abs=1e-6)
    assert curves.compared({"x264 medium": _curve(1.0)}) == {}
    missing = {"zvc to x264 medium": {"psnr_y": {"bd_rate": None, "reason": "none"}}}
    mean = curves.means({"a": compared, "b": missing})["zvc to x264 medium"]["psnr_y"]
    assert mean == {"bd_rate": pytest.approx(10, abs=1e-6), "videos": 1, "of": 2}


def test_a_picture_has_a_panel_for_each_measure_that_all_points_have():
    found = {"one": _curve(1.0), "two": _curve(1.1)}
    axes = {"psnr_y": "PSNR", "ms_ssim": "MS-SSIM", "vmaf": "VMAF"}
    drawn = chart.picture(found, axes, "a < b")
    assert drawn.count("<polyline") == 4 and drawn.count("<g ") == 2
    assert "a &lt; b" in drawn and "VMAF" not in drawn


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(1)
    y = np.repeat(np.repeat(rng.integers(0, 255, (3, 12, 12)), 8, 1), 8, 2).astype(np.uint8)
    uv = np.full((3, 2, 48, 48), 128, np.uint8)
    path = tmp_path / "three.mkv"
    source.write(source.Pictures(y, uv, (0, 1, 2), Fraction(1, 25), 1, 8, "bt709", "tv"), path)
    return path


def test_a_bench_goes_on_where_it_was_ended(video, tmp_path, monkeypatch):
    def points():
        return curves.Bench(video, tmp_path / "points").curves(["x264 medium"])["x264 medium"]

    first = points()
    assert [point.setting for point in first] == [23, 28, 33, 38]
    assert [point.bytes for point in first] == sorted((p.bytes for p in first), reverse=True)
    kept = sorted((tmp_path / "points").iterdir())
    kept[0].unlink()
    made = []
    encoded = curves.encoded

    def noted(pictures, options, crf):
        made.append(crf)
        return encoded(pictures, options, crf)

    monkeypatch.setattr(curves, "encoded", noted)
    again = points()
    assert made == [23]
    assert [p.bytes for p in again] == [p.bytes for p in first]
    assert json.loads(kept[1].read_text())["setting"] == 28


def test_multiplications_of_what_is_called_are_counted(monkeypatch):
    def program(x):
        looped = jax.lax.fori_loop(0, 3, lambda _, y: y * 2.0, x)
        return looped + x @ jnp.ones((5, 7))[:, :5]

    compiled = jax.jit(program)
    monkeypatch.setattr(metrics, "psnr", compiled)  # any place in zoo.codec will do
    with work.counted() as macs:
        for _ in range(2):
            metrics.psnr(jnp.ones((4, 5)))  # pyright: ignore[reportCallIssue]
    assert macs() == 2 * (3 * 20 + 4 * 5 * 5)
    assert metrics.psnr is compiled
