"""Rates and qualities: BD-rate against values of other implementations, metrics on known cases."""

import numpy as np
import pytest

from zoo.codec import curves

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
    assert curves.psnr(a, a, 8) == 100
    assert curves.psnr(a, a + 1, 8) == pytest.approx(10 * np.log10(255**2))
    assert curves.ms_ssim(a, a, 8) == pytest.approx(1)
    noisy = np.clip(a + rng.normal(0, 40, a.shape), 0, 255)
    assert 0 < curves.ms_ssim(a, noisy, 8) < curves.ms_ssim(a, a + 2, 8) < 1


def test_curves_are_drawn_and_compared():
    def curve(factor):
        return [
            curves.Point(0, factor * rate, {"psnr_y": quality}, 1.0, 1.0)
            for rate, quality in ANCHOR
        ]

    found = {name: curve(1.0) for name in curves.LADDER} | {curves.OWN: curve(1.1)}
    compared = curves.compared(found)
    assert compared["x264 medium"]["psnr_y"]["bd_rate"] == pytest.approx(10, abs=1e-6)
    assert curves.picture(found).count("<polyline") == 4
