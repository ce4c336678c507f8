"""PyTorchVideo's bottleneck networks: reference logits."""

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["c2d_r50", "i3d_r50", "slow_r50", "r2plus1d_r50", "csn_r101"])
def test_reference_logits(check_golden, name):
    check_golden(f"pytorchvideo_{name}", name)
