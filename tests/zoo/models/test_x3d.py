"""X3D: reference logits."""

import pytest


def test_reference_logits(check_golden):
    check_golden("pytorchvideo_x3d_xs", "x3d_xs")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["x3d_s", "x3d_m", "x3d_l"])
def test_reference_logits_of_the_others(check_golden, name):
    check_golden(f"pytorchvideo_{name}", name)
