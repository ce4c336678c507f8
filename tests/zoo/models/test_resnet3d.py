"""torchvision's video ResNets: reference logits, and what the module itself promises."""

import pytest


def test_reference_logits(check_golden):
    check_golden("torchvision_r3d_18", "r3d_18")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["mc3_18", "r2plus1d_18"])
def test_reference_logits_of_the_others(check_golden, name):
    check_golden(f"torchvision_{name}", name)
