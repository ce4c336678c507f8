"""Broken, hostile and oversized input: typed errors, and good frames on demand."""

import os
import pathlib
import pickle
import socket
import struct
import subprocess
import threading

import numpy as np
import pytest

from zoo import video
from zoo.video import ClipRequest, ffmpeg

READERS = {
    "probe": video.probe,
    "decode": video.decode,
    "partial": lambda path: video.decode(path, partial=True),
    "shrink": lambda path: video.shrink(path, short_side=16),
}


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest):
    return READERS[request.param]


def test_no_video_at_all(make_video, tmp_path, read):
    sound = tmp_path / "sound only.m4a"
    command = [ffmpeg.executable(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=0.2"]
    subprocess.run([*command, str(sound)], check=True)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    os.mkfifo(tmp_path / "pipe.mp4")
    reasons = {
        "sound only.m4a": "no video stream",
        "empty.mp4": "empty",
        "text.mp4": "not recognise",
        "noise.mp4": "not recognise",
        "pipe.mp4": "not a regular file",
        ".": "folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(video.NotAVideo, match=reason) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.source == str(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.mp4")


def test_a_picture_of_a_song_is_no_video(make_video, tmp_path):
    song = tmp_path / "song.m4a"
    picture = make_video("cover.png", "-frames:v", "1")
    command = [ffmpeg.executable(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=0.2"]
    command += ["-i", str(picture), "-map", "0", "-map", "1", "-c:v", "copy"]
    subprocess.run([*command, "-disposition:v", "attached_pic", str(song)], check=True)
    with pytest.raises(video.NotAVideo, match="no video stream"):
        video.decode(song)


def test_bytes_are_named(read):
    with pytest.raises(video.NotAVideo, match="<5 bytes>: "):
        read(b"hello")
    with pytest.raises(video.NotAVideo, match="it is empty"):
        read(b"")
    with pytest.raises(video.NotAVideo, match=r"^clip 7 of shard 3: "):
        video.decode(b"hello", name="clip 7 of shard 3")


# Container: options; the share of the file that is kept.
CUT = {
    "index_first.mp4": ["-c:v", "libx264", "-g", "12", "-movflags", "+faststart"],
    "cut.mkv": ["-c:v", "libx264", "-g", "12"],
    "cut.webm": ["-c:v", "libvpx-vp9", "-g", "12", "-deadline", "realtime", "-cpu-used", "8"],
    "cut.avi": ["-c:v", "mpeg4", "-g", "12"],
    "cut.flv": ["-c:v", "libx264", "-g", "12"],
    "cut.ts": ["-c:v", "libx264", "-g", "12", "-b:v", "2M"],
    "cut.mpg": ["-c:v", "mpeg2video", "-g", "12", "-b:v", "2M"],
    "cut.gif": [],
}


@pytest.mark.parametrize("name", CUT)
def test_truncated_files(make_video, tmp_path, name: str):
    whole_file = make_video(name, *CUT[name], size="128x96")
    whole = video.decode(whole_file)
    content = whole_file.read_bytes()
    cut = tmp_path / name
    cut.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(video.BrokenVideo, match=r"cut short|damaged") as caught:
        video.decode(cut)
    assert str(cut) in str(caught.value) and "partial=True" in str(caught.value)
    part = video.decode(cut, partial=True)
    assert isinstance(part.error, video.BrokenVideo)
    count = len(part.frames)
    assert caught.value.good_frames == part.error.good_frames == count
    assert 15 < count < 45
    kept = places(whole, part)
    assert kept[:-1] == list(range(count - 1)), "only B-frames before the last may be missing"
    np.testing.assert_array_equal(part.frames, whole.frames[kept])
    # What is whole is given without complaint, alone and together with others.
    early = video.decode(cut, frames=5)
    assert early.error is None
    np.testing.assert_array_equal(early.frames, whole.frames[:5])
    requests = [ClipRequest(cut, frames=5), ClipRequest(cut, frames=50)]
    good, broken = video.decode_many(requests, size=(96, 128))
    assert isinstance(good, video.Clip) and isinstance(broken, video.BrokenVideo)
    with pytest.raises(video.BrokenVideo):
        video.shrink(cut, short_side=32)


def places(whole: video.Clip, part: video.Clip) -> list[int]:
    """Which frames of `whole` have the times of `part`."""
    place = {time: k for k, time in enumerate(whole.timestamps)}
    return [place[time] for time in part.timestamps]


def test_missing_index(make_video, tmp_path, read):
    content = make_video("index_last.mp4", "-c:v", "libx264").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(video.BrokenVideo, match=r"index .* is missing"):
        read(tmp_path / "cut.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hole.mkv", ["-c:v", "libx264", "-g", "12", "-bf", "2"]),
        ("hole.ts", ["-c:v", "libx264", "-g", "12"]),
        ("hole.mov", ["-c:v", "png"]),
        ("hole.avi", ["-c:v", "mpeg4", "-g", "12"]),
        ("hole265.mkv", ["-c:v", "libx265", "-g", "12", "-x265-params", "log-level=none"]),
        ("hole.gif", []),
    ],
)
def test_damage_in_the_middle(make_video, tmp_path, name: str, options: list[str]):
    whole_file = make_video(name, *options, size="128x96")
    whole = video.decode(whole_file)
    content = bytearray(whole_file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(200) + bytes([255]) * 200
    damaged = tmp_path / name
    damaged.write_bytes(content)
    with pytest.raises(video.BrokenVideo, match="damaged"):
        video.decode(damaged)
    part = video.decode(damaged, partial=True)
    assert part.error is not None
    assert 10 < len(part.frames) < 50
    # Every frame that is given is right, whichever are left out.
    kept = places(whole, part)
    np.testing.assert_array_equal(part.frames, whole.frames[kept])
    spoiled_at = float(whole.timestamps[min(set(range(50)) - set(kept))])
    if name not in ("hole.gif",):
        assert kept[-1] == 49, "frames after the next key frame are good again"
        late = video.decode(damaged, start=float(whole.timestamps[44]), frames=4)
        np.testing.assert_array_equal(late.frames, whole.frames[44:48])
        requests = [ClipRequest(damaged, start=t, frames=4) for t in (0.0, spoiled_at, 1.76)]
        first, spoiled, last = video.decode_many(requests, size=(96, 128))
        np.testing.assert_array_equal(first.frames, whole.frames[:4])
        np.testing.assert_array_equal(last.frames, late.frames)
        assert isinstance(spoiled, video.BrokenVideo)


def test_a_real_corrupted_file(shared: pathlib.Path):
    path = shared / "videos" / "corrupted.mp4"
    with pytest.raises(video.BrokenVideo, match=r"corrupted.mp4: its data is damaged"):
        video.decode(path, size=(36, 64))
    part = video.decode(path, size=(36, 64), partial=True)
    assert part.error is not None
    # Everything after the damaged packet is predicted from it: there is one key frame.
    np.testing.assert_allclose(part.timestamps, np.arange(len(part.frames)) / 10)
    assert len(part.frames) == part.error.good_frames == 29
    assert video.decode(path, frames=16, size=(36, 64)).error is None


def test_errors_cross_process_boundaries():
    error = video.BrokenVideo("a.mp4", "it was cut short", good_frames=7)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.good_frames, copy.reason) == (str(error), 7, "it was cut short")
    other = pickle.loads(pickle.dumps(video.VideoTimeout("b.mp4", "slow", "wait")))
    assert isinstance(other, video.VideoTimeout) and str(other) == "b.mp4: slow; wait"


def test_sizes_are_bounded(make_video, tmp_path):
    path = make_video("bounded.mp4", "-c:v", "libx264")
    frame = 48 * 64 * 3
    assert len(video.decode(path, frames=10, max_bytes=10 * frame).frames) == 10
    with pytest.raises(video.VideoTooLarge, match=r"bounded.mp4"):
        video.decode(path, max_bytes=10 * frame)
    with pytest.raises(video.VideoTooLarge, match="9216000000000 bytes"):
        video.decode(path, frames=10**9, size=(48, 64))
    small, large = video.decode_many(
        [ClipRequest(path, frames=2), ClipRequest(path, frames=11)], size=(48, 64),
        max_bytes=10 * frame,
    )  # fmt: skip
    assert isinstance(small, video.Clip) and isinstance(large, video.VideoTooLarge)
    huge = make_video("huge.mov", "-c:v", "png", source="color", size="9000x9000", seconds=0.04)
    for reader in READERS.values():
        with pytest.raises(video.VideoTooLarge, match=r"huge.mov: .*pixels"):
            reader(huge)


@pytest.fixture
def canary(make_video, tmp_path):
    """A video that must not be opened through another file, and a server that nobody may call."""
    calls = []
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            if connection.recv(16) == b"stop":
                return
            calls.append(port)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    target = tmp_path / "secret.mp4"
    target.write_bytes(make_video("secret.mp4", "-c:v", "libx264", seconds=0.4).read_bytes())
    yield target, port, calls
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"stop")
    thread.join()
    server.close()


def test_a_file_opens_nothing_else(canary, tmp_path, read):
    target, port, calls = canary
    playlists = {
        "concat.mp4": "ffconcat version 1.0\nfile {}\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 "
        "RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:{}\n",
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        "<Period><AdaptationSet><Representation id='0' bandwidth='1'><BaseURL>{}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "picture.mp4": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
        '<image href="{}" width="9" height="9"/></svg>',
    }
    addresses = [str(target), f"file:{target}", f"http://127.0.0.1:{port}/a.mp4"]
    addresses.append(f"concat:{target}|{target}")
    for name, text in playlists.items():
        for address in addresses:
            path = tmp_path / name
            path.write_text(text.format(address))
            for source in (path, path.read_bytes()):
                with pytest.raises(video.VideoError):
                    read(source)
    assert calls == []
    # The server does notice calls.
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"hello")
        connection.recv(1)
    assert calls == [port]


def test_a_name_is_not_an_address(canary, tmp_path):
    target, port, calls = canary
    for address in (f"http://127.0.0.1:{port}/a.mp4", f"concat:{target}", "-version", "pipe:0"):
        with pytest.raises(FileNotFoundError):
            video.decode(address)
    for name in ("-i.mp4", "a:b.mp4", "%d.mp4", "naïve 影片 ' \" ; $(x).mp4"):
        path = tmp_path / name
        path.write_bytes(target.read_bytes())
        assert len(video.decode(path, size=8).frames) == 10
        os.chdir(tmp_path)
        assert video.probe(name).frames == 10
    assert calls == []


def test_a_movie_that_keeps_its_data_elsewhere(make_video, tmp_path, read):
    """A QuickTime data reference to another file: it is not followed."""
    content = make_video("elsewhere.mov", "-c:v", "mpeg4", "-f", "mov").read_bytes()
    # The other file holds the same bytes, so that a reader that followed it would succeed.
    (tmp_path / "data.mov").write_bytes(content)
    at = content.index(b"\x00\x00\x00\x0curl \x00\x00\x00\x01") if b"url " in content else None
    alias = _alias(str(tmp_path / "data.mov"))
    if at is None:
        at = content.index(b"\x00\x00\x00\x0calis\x00\x00\x00\x01")
    changed = content[:at] + alias + content[at + 12 :]
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = changed.rindex(parent, 0, at) - 4
        size = struct.unpack(">I", changed[place : place + 4])[0] + len(alias) - 12
        changed = changed[:place] + struct.pack(">I", size) + changed[place + 4 :]
    path = tmp_path / "reference.mov"
    path.write_bytes(changed)
    follow = [ffmpeg.executable(), "-loglevel", "error", "-enable_drefs", "1"]
    follow += ["-i", str(path), "-f", "null", "-"]
    assert subprocess.run(follow, capture_output=True).returncode == 0, "the reference is valid"
    with pytest.raises(video.VideoError):
        read(path)


def _alias(target: str) -> bytes:
    """An `alis` data reference that names `target` by its absolute path."""
    path = target.encode() + b"\0" * (len(target.encode()) % 2)
    record = bytes(10) + b"\x03vol" + bytes(24) + bytes(12) + b"\x08data.mov" + bytes(55)
    record += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    body = b"alis" + bytes(4) + record
    return struct.pack(">I", len(body) + 4) + body
