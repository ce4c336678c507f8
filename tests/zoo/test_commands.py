"""python -m zoo: what its commands print."""

import pytest

from zoo import __main__ as command_line


def test_info_shows_the_architecture(capsys):
    assert command_line.main(["info", "r3d_18"]) == 0
    out = capsys.readouterr().out
    for part in (
        "16 frames of 112x112",
        "33,371,472 with 400 classes",
        "81.39 GFLOP",
        "133.5 MB of parameters",
        "r3d_18.k400: BSD-3-Clause, top-1 63.2 on kinetics400 (5 clips x 1 crop of 112)",
    ):
        assert part in out
    rows = [line.split() for line in out.splitlines()]
    assert ["head", "Dense", "1x400", "205,200"] in rows
    parameters = [int(row[-1].replace(",", "")) for row in rows[rows.index([]) + 2 :]]
    assert sum(parameters) == 33_371_472


def test_info_shows_what_weights_may_not_be_used_for(capsys):
    from zoo.commands import show

    line = show.licence("videomae_b.k400")
    assert line.startswith("videomae_b.k400: CC-BY-NC-4.0, not for commercial use, top-1 80.9")


def test_bench_measures(capsys):
    arguments = ["bench", "cnn_small", "--batch", "2", "--seconds", "0.01"]
    assert command_line.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cnn_small, float32, 8 frames of 64x64" and "cpu" in lines[1]
    size, _, rate, median, p90, memory = (float(value) for value in lines[3].split())
    assert size == 2 and 0 < median <= p90 and rate > 0
    assert memory > 2 * 8 * 64 * 64 * 3 * 4 / 1e6  # the clips


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn_smal"], "did you mean 'cnn_small'"),
        (["cnn_small", "--batch", "0"], "greater than 0"),
        (["cnn_small", "--seconds", "nan"], "greater than 0"),
    ],
)
def test_bench_refuses(arguments, message, capsys):
    assert command_line.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
