"""Downloads from a real server on this machine, which breaks off, lies and redirects."""

import errno
import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from zoo.weights import download
from zoo.weights.download import DownloadError, Expected, Limits

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(timeout=2.0, tries=3, pause=0.01)


@pytest.fixture
def fetch(server, tmp_path):
    """fetch(expected): downloads to `weights.pth`; `fetch.said` holds the lines for the user."""
    said: list[str] = []

    def run(expected: Expected | None = None, limits: Limits = QUICK, url: str = "") -> str:
        path = tmp_path / "cache" / "weights.pth"
        return download.download(
            url or server.url, path, expected, advice="ADVICE", say=said.append, limits=limits
        )

    run.said = said
    return run


def files(tmp_path):
    names = {file.name for file in (tmp_path / "cache").iterdir()}
    return sorted(names - {".weights.pth.lock"})


BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
EXPECTED = [
    Expected(),
    Expected(DIGEST),
    Expected(DIGEST[:8], BLOB, len(CONTENT)),
]


@pytest.mark.parametrize("expected", EXPECTED)
def test_a_file_arrives_whole_and_is_fetched_once(server, fetch, tmp_path, expected):
    assert fetch(expected) == DIGEST
    assert (tmp_path / "cache" / "weights.pth").read_bytes() == CONTENT
    assert files(tmp_path) == ["weights.pth", "weights.pth.sha256"]
    assert fetch(expected) == DIGEST and len(server.requests) == 1
    assert fetch.said == [f"fetching {server.url}"]


@pytest.mark.parametrize("expected", EXPECTED)
def test_a_broken_connection_is_resumed(server, fetch, tmp_path, expected):
    server.breaks = [100_000, 200_000]
    assert fetch(expected) == DIGEST
    assert [r.get("Range") for r in server.requests] == [None, "bytes=100000-", "bytes=300000-"]
    assert (tmp_path / "cache" / "weights.pth").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_asked_for_all_of_it(server, fetch):
    server.breaks, server.ranges = [100_000], False
    assert fetch(Expected(DIGEST)) == DIGEST


def test_without_a_way_to_tell_files_apart_nothing_is_resumed(server, fetch):
    server.breaks, server.etag = [100_000], ""
    assert fetch() == DIGEST
    assert [r.get("Range") for r in server.requests] == [None, None]


def test_what_came_is_kept_for_the_next_run(server, fetch, tmp_path):
    server.breaks = [50_000] * 3
    with pytest.raises(DownloadError, match=r"broke off 3 times.*of 512,000 bytes.*ADVICE"):
        fetch(Expected(DIGEST))
    assert (tmp_path / "cache" / "weights.pth.part").stat().st_size == 150_000
    assert not (tmp_path / "cache" / "weights.pth").exists()
    assert fetch(Expected(DIGEST)) == DIGEST
    assert server.requests[-1]["Range"] == "bytes=150000-"
    assert fetch.said[-1].endswith("from byte 150,000 on")


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server, fetch, tmp_path):
    server.breaks = [50_000] * 3
    with pytest.raises(DownloadError):
        fetch()
    server.content, server.etag = b"other" * 20_000, '"two"'
    assert fetch() == hashlib.sha256(server.content).hexdigest()


def test_a_part_of_another_file_costs_one_more_try(server, fetch, tmp_path):
    server.etag = ""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.pth.part").write_bytes(b"x" * 1000)
    assert fetch(Expected(DIGEST)) == DIGEST
    assert [r.get("Range") for r in server.requests] == ["bytes=1000-", None]


def test_a_part_that_is_whole_already_is_used(server, fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.pth.part").write_bytes(CONTENT)
    assert fetch(Expected(DIGEST)) == DIGEST and len(server.requests) == 1


@pytest.mark.parametrize(
    "expected", [Expected("0" * 8), Expected(git_blob="0" * 40)], ids=["sha256", "git"]
)
def test_a_wrong_digest_leaves_nothing_behind(fetch, tmp_path, expected):
    with pytest.raises(DownloadError, match=rf"512,000 bytes with sha256 {DIGEST}.*000\.\.\."):
        fetch(expected)
    assert files(tmp_path) == []


def test_a_file_without_a_published_digest_is_pinned(server, fetch, tmp_path):
    fetch()
    (tmp_path / "cache" / "weights.pth").unlink()
    server.content = b"replaced"
    with pytest.raises(DownloadError, match=rf"sha256 {DIGEST} as when it was first fetched"):
        fetch()
    assert not (tmp_path / "cache" / "weights.pth").exists()


def test_a_truncated_file_on_the_server_is_refused(server, fetch):
    server.content = CONTENT[:1000]
    with pytest.raises(DownloadError, match="has 1,000 bytes, not 512,000 as recorded"):
        fetch(Expected(size=len(CONTENT)))


def test_without_a_length_the_digest_decides(server, fetch):
    server.says_length = False
    server.breaks = [1000] * 9
    with pytest.raises(DownloadError, match="1,000 bytes with sha256"):
        fetch(Expected(DIGEST))


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_larger_than_weights_are_is_refused(server, fetch, says_length):
    server.says_length = says_length
    with pytest.raises(DownloadError, match=r"more than (weights have|1,000 bytes); not fetched"):
        fetch(limits=Limits(most_bytes=1000))


def test_a_slow_server_is_given_up(server, fetch):
    server.delay = 0.2
    with pytest.raises(DownloadError, match=r"not done after 0 s .* what has come is kept"):
        fetch(limits=Limits(timeout=2.0, total=0.3))


def test_a_silent_server_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        limits = Limits(timeout=0.1, tries=2, pause=0.01)
        with pytest.raises(DownloadError, match=r"broke off 2 times.*[Tt]ime"):
            download.download(url, tmp_path / "a", say=len, limits=limits)


def test_an_offline_machine_is_told_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match=r"cannot be reached \(Connection refused\); ADVICE"):
        download.download(f"http://127.0.0.1:{port}/a", tmp_path / "a", advice="ADVICE", say=len)


@pytest.mark.parametrize(
    ("status", "message", "requests"),
    [(404, "answered 404 Not Found; ADVICE", 1), (503, "broke off 3 times.*answered 503", 3)],
)
def test_an_error_of_the_server(server, fetch, status, message, requests):
    server.status = status
    with pytest.raises(DownloadError, match=message):
        fetch()
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    "url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "weights.pth"]
)
def test_only_encrypted_addresses_are_fetched(tmp_path, url):
    with pytest.raises(DownloadError, match="only https"):
        download.download(url, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("to", ["http://example.org/a", "file:///etc/passwd", "ftp://h/a"])
def test_a_redirection_to_an_open_connection_is_refused(server, fetch, to):
    server.redirect = to
    with pytest.raises(DownloadError, match=r"only https|is not allowed"):
        fetch()


def test_a_disk_without_room_is_noticed_before(fetch, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1000))
    with pytest.raises(DownloadError, match=r"needs 512,000 bytes of room, 1,000 are free; make"):
        fetch()
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_is_one_clear_error(fetch, monkeypatch, tmp_path):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match=r"needs more room.*set ZOO_CACHE"):
        fetch()
    assert not (tmp_path / "cache" / "weights.pth").exists()


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_write_that_fails_is_one_clear_error(fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.pth.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"needs more room.*set ZOO_CACHE"):
        fetch()


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DownloadError, match=r"cannot be written.*set ZOO_CACHE"):
        download.download(server.url, tmp_path / "cache" / "a", say=len)


SCRIPT = """
import pathlib, sys
from zoo.weights import download
print(download.download(sys.argv[1], pathlib.Path(sys.argv[2]), say=lambda line: None))
"""


def start(server, path):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url, str(path)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_fetch_it_once(server, tmp_path):
    server.delay = 0.05  # 8 blocks
    processes = [start(server, tmp_path / "a") for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == [DIGEST] * 2
    assert len(server.requests) == 1


def test_a_killed_process_leaves_its_part_and_no_lock(server, tmp_path):
    server.delay = 0.05
    process = start(server, tmp_path / "a")
    part = tmp_path / "a.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    size = part.stat().st_size
    assert 0 < size < len(CONTENT) and not (tmp_path / "a").exists()
    assert download.download(server.url, tmp_path / "a", say=len) == DIGEST
    assert server.requests[-1]["Range"] == f"bytes={size}-"


def test_waiting_for_another_process_is_said(server, tmp_path):
    said: list[str] = []
    server.delay = 0.05
    path = tmp_path / "a"
    first = threading.Thread(
        target=lambda: download.download(server.url, path, say=lambda line: None)
    )
    first.start()
    while not server.requests:
        time.sleep(0.005)
    download.download(server.url, path, say=said.append)
    first.join()
    assert said == ["another process is fetching a; waiting"] and len(server.requests) == 1
