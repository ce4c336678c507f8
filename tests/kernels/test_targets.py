"""Names of chips to compile for."""

import pytest

from kernels.targets import Target


@pytest.mark.parametrize(
    ("text", "chip", "topology", "platform"),
    [
        ("v5e:2x4", "v5e", (2, 4), "tpu"),
        ("v6e:1x1", "v6e", (1, 1), "tpu"),
        ("v4:2x2x2", "v4", (2, 2, 2), "tpu"),
        ("v5p:2x2x2", "v5p", (2, 2, 2), "tpu"),
        ("h200", "h200", (), "cuda"),
    ],
)
def test_names(text, chip, topology, platform):
    target = Target.parse(text)
    assert target == Target(chip, topology, platform)
    assert str(target) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v5e",
        "v5e:",
        "v5e:2",
        "v5e:2x2x2",
        "v5e:0x4",
        "v5e:2x4x",
        "v6e:99x99",
        "h200:1",
        "h200:",
        "a1",
    ],
)
def test_other_names_are_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="use v5e:2x4, v6e:2x4"):
        Target.parse(text)
