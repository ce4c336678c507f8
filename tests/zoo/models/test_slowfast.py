"""SlowFast: reference logits."""

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reference_logits(check_golden):
    check_golden("pytorchvideo_slowfast_r50", "slowfast_r50")
