"""SlowFast: reference logits."""

import pytest


@pytest.mark.slow
def test_reference_logits(check_golden):
    check_golden("pytorchvideo_slowfast_r50", "slowfast_r50")
