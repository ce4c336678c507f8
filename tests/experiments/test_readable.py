"""Numbers as people read them."""

import pytest

from experiments import readable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.000"),
        (0.12345, "0.123"),
        (2.3026, "2.30"),
        (45.67, "45.7"),
        (1033.2, "1033"),
        (1e9, "1.00e+09"),
        (1.5e-7, "1.50e-07"),
        (-0.5, "-0.500"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert readable.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.46, "9.5 s"),
        (59.97, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (float("nan"), "nan"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert readable.duration(seconds) == text
