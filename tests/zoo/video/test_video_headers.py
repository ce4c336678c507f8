"""Files that are opened again: quicker, and with the same result."""

import numpy as np
import pytest

from zoo import video
from zoo.video import ClipRequest, ffmpeg, headers

KINDS = {
    "again.mp4": ["-c:v", "libx264", "-g", "12", "-bf", "3"],
    "again.mkv": ["-c:v", "libx264", "-g", "12", "-bf", "3"],
    "again.webm": ["-c:v", "libvpx-vp9", "-g", "12", "-deadline", "realtime", "-cpu-used", "8"],
    "again_late.mkv": [
        *("-f", "lavfi", "-i", "sine=d=2", "-vf", "setpts=PTS+0.48/TB", "-c:v", "libx264"),
        *("-g", "12"),
    ],
    "again_late.mp4": [
        *("-f", "lavfi", "-i", "sine=d=2", "-vf", "setpts=PTS+0.48/TB", "-c:v", "libx264"),
        *("-g", "12"),
    ],
    "again_fragmented.mp4": [
        "-c:v",
        "libx264",
        "-g",
        "12",
        "-movflags",
        "frag_keyframe+empty_moov",
    ],
    "again_no_edit_list.mp4": ["-c:v", "libx264", "-g", "12", "-use_editlist", "0"],
    "again265.mkv": ["-c:v", "libx265", "-g", "12", "-x265-params", "log-level=none:open-gop=1"],
}


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The arguments of every ffmpeg process from here on."""
    seen: list[list[str]] = []
    run = ffmpeg.Job.run

    def watch(job, arguments, **options) -> None:
        seen.append(list(arguments))
        run(job, arguments, **options)

    monkeypatch.setattr(ffmpeg.Job, "run", watch)
    monkeypatch.setattr(headers, "_stream_starts", {})
    return seen


def same_twice(path, commands: list[list[str]], whole: video.Clip) -> None:
    """Decodes the same clips three times; the later times must use the shortcut."""
    starts = [0.0, *map(float, whole.timestamps[[1, 15, 30, -3]])]
    requests = [ClipRequest(path, start=start, frames=6) for start in starts]
    for time in range(3):
        commands.clear()
        clips = video.decode_many(requests, size=(24, 32))
        assert len(commands) == 1
        assert ("-nofind_stream_info" in commands[0]) == (time > 0)
        for start, clip in zip(starts, clips, strict=True):
            first = int(np.argmin(np.abs(whole.timestamps - start)))
            np.testing.assert_array_equal(clip.timestamps, whole.timestamps[first : first + 6])
            np.testing.assert_array_equal(clip.frames, whole.frames[first : first + 6])


@pytest.mark.parametrize("name", KINDS)
def test_the_second_time_gives_the_same(make_video, commands, name: str):
    path = make_video(name, *KINDS[name])
    whole = video.decode(path, size=(24, 32))
    # Sound that begins first takes a second look, the first time.
    video.decode_many([ClipRequest(path, frames=1)] * 2, size=(24, 32))
    headers._stream_starts.clear()
    if any(word in name for word in ("late", "fragmented", "no_edit")):
        requests = [ClipRequest(path, start=t, frames=4) for t in (0.2, 1.0, 1.2)]
        for _ in range(3):
            for request, clip in zip(
                requests, video.decode_many(requests, size=(24, 32)), strict=True
            ):
                first = round(request.start * 25)
                np.testing.assert_array_equal(clip.frames, whole.frames[first : first + 4])
                np.testing.assert_array_equal(clip.timestamps, whole.timestamps[first : first + 4])
    else:
        same_twice(path, commands, whole)


def test_rotation_is_in_the_header(shared, commands):
    path = shared / "videos" / "rot_90.mov"
    whole = video.decode(path, size=(24, 32))
    for _ in range(2):
        pair = video.decode_many([ClipRequest(path, frames=3)] * 2, size=(24, 32))
        np.testing.assert_array_equal(pair[1].frames, whole.frames)
    assert "-nofind_stream_info" in commands[-1]


def test_reordering_that_the_stream_does_not_declare(make_video, tmp_path, commands):
    """An H.264 stream without VUI: only its frames, or its level, tell how far they move."""
    options = ["-c:v", "libx264", "-g", "24", "-bf", "3", "-profile:v", "main"]
    declared = make_video("declared.mp4", *options)
    path = tmp_path / "undeclared.mp4"
    path.write_bytes(_without_vui(declared.read_bytes()))
    whole = video.decode(path, size=(24, 32))
    np.testing.assert_array_equal(whole.frames, video.decode(declared, size=(24, 32)).frames)
    same_twice(path, commands, whole)


def test_a_file_that_changes_is_another_file(make_video, tmp_path, commands):
    path = tmp_path / "changing.mp4"
    for name in ("again.mp4", "again_late.mp4", "again.mp4"):
        path.write_bytes(make_video(name, *KINDS[name]).read_bytes())
        expected = video.decode(path, start=1.0, frames=2, size=(24, 32))
        for _ in range(2):
            pair = video.decode_many([ClipRequest(path, start=1.0, frames=2)] * 2, size=(24, 32))
            np.testing.assert_array_equal(pair[0].frames, expected.frames)
            np.testing.assert_array_equal(pair[0].timestamps, expected.timestamps)


def test_memory_of_files_is_bounded(make_video, monkeypatch):
    monkeypatch.setattr(headers, "_MOST", 2)
    monkeypatch.setattr(headers, "_stream_starts", {})
    for name in list(KINDS)[:3]:
        video.decode_many([ClipRequest(make_video(name, *KINDS[name]), frames=1)] * 2, size=(8, 8))
    assert len(headers._stream_starts) == 2


def _without_vui(content: bytes) -> bytes:
    """Clears `vui_parameters_present_flag` in the sequence parameter set of an MP4."""
    at = content.index(b"avcC") + 4 + 6
    length = int.from_bytes(content[at : at + 2], "big")
    old = content[at + 2 : at + 2 + length]
    bits = "".join(f"{byte:08b}" for byte in old.replace(b"\0\0\3", b"\0\0"))
    place = 8 + 24  # NAL header, profile, constraints, level

    def golomb() -> int:
        nonlocal place
        zeros = bits.index("1", place) - place
        value = int(bits[place + zeros : place + 2 * zeros + 1], 2) - 1
        place += 2 * zeros + 1
        return value

    golomb(), golomb()  # identifier, log2_max_frame_num
    assert golomb() == 0, "picture order count of type 0"
    golomb(), golomb()  # log2_max_pic_order_cnt, num_ref_frames
    place += 1
    golomb(), golomb()  # width, height
    place += 2  # frame_mbs_only, direct_8x8_inference
    place += 1
    if bits[place - 1] == "1":
        golomb(), golomb(), golomb(), golomb()  # cropping
    assert bits[place] == "1", "x264 writes VUI"
    short = bits[:place] + "01"
    short += "0" * (-len(short) % 8)
    new = int(short, 2).to_bytes(len(short) // 8, "big")
    new += b"\0" * (length - len(new))  # Zeros may follow the end of the set.
    return content[: at + 2] + new + content[at + 2 + length :]
