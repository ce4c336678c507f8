"""TensorBoard files: read back by the format's definition, full disks, resumed runs."""

import math
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from experiments.events import EventWriter

ROOT = pathlib.Path(__file__).resolve().parents[2]


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4)."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum of a TFRecord: rotated right by 15 and shifted."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read(path: pathlib.Path) -> list:
    """All events of a file; every checksum must be right."""
    from tensorboardX.proto import event_pb2

    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        record = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(record),)
        events.append(event_pb2.Event.FromString(record))  # pyright: ignore
        data = data[16 + length :]
    return events


def test_scalars_come_back(tmp_path: pathlib.Path) -> None:
    """Numbers of every kind are kept; names, tables, None and the step itself are not."""
    with EventWriter(tmp_path / "run") as writer:
        writer.write(
            7,
            {
                "step": 7,
                "train/loss": 0.5,
                "val/top1": np.float32(0.25),
                "count": np.array(3),
                "diverged": float("nan"),
                "huge": 1e300,
                "name": "x",
                "nothing": None,
                "flag": True,
                "table": [[1, 2]],
                "vector": np.zeros(1),
            },
        )
        writer.write(8, {"name": "only text"})
    assert writer.path.parent == tmp_path / "run"
    first, event = read(writer.path)
    assert first.file_version == "brain.Event:2"
    assert event.step == 7
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert math.isnan(values.pop("diverged"))
    assert values == {"train/loss": 0.5, "val/top1": 0.25, "count": 3.0, "huge": math.inf}


def test_lines_are_on_the_disk_before_the_run_ends(tmp_path: pathlib.Path) -> None:
    """A killed run keeps what it has logged."""
    writer = EventWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    assert [event.step for event in read(writer.path)] == [0, 1]
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(2, {"loss": 1.0})


def test_resumed_run_starts_a_session(tmp_path: pathlib.Path) -> None:
    """A second file, which tells TensorBoard from which step on the first one is void."""
    with EventWriter(tmp_path) as first:
        first.write(120, {"loss": 1.0})
    with EventWriter(tmp_path, resume_step=100) as second:
        second.write(101, {"loss": 2.0})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert first.path.name < second.path.name  # TensorBoard reads them in this order
    session = read(second.path)[1]
    assert (session.step, session.session_log.status) == (101, session.session_log.START)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_full_disk_is_an_error_at_once(tmp_path: pathlib.Path) -> None:
    writer = EventWriter(tmp_path)
    writer._records._writer.close()
    with pathlib.Path("/dev/full").open("wb", buffering=0) as full:
        writer._records._writer = full
        with pytest.raises(OSError, match=rf"disk is full.*--resume.*{writer.path.name}"):
            writer.write(1, {"loss": 1.0})
    writer.close()


def test_nothing_heavy_is_imported() -> None:
    """Protocol buffers come with the first writer, TensorFlow never."""
    program = (
        "import sys, tempfile, pathlib\n"
        "import experiments.events, experiments.progress\n"
        "heavy = {'tensorboardX', 'jax', 'flax', 'google.protobuf', 'tensorflow', 'grain'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "experiments.events.EventWriter(pathlib.Path(tempfile.mkdtemp())).close()\n"
        "assert not {'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
