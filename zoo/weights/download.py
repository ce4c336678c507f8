"""Downloads: resumed where they broke off, verified before use, one process at a time.

A file grows as NAME.part beside its place and moves there, in one step, only after its length and
its digest were found right. NAME.sha256 then pins the digest, so that a file without a published
one cannot change later without notice.
"""

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from zoo import cache
from zoo.weights.errors import WeightsError

MOST_BYTES = 4 << 30
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BLOCK = 1 << 20


class DownloadError(WeightsError):
    """A file that could not be fetched whole and right; the message says what to do."""


class _Broken(Exception):
    """The connection ended early; it is worth another try."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is published about a file, as far as anything is.

    sha256: the digest or the beginning of it, in hexadecimal digits.
    git_blob: the name that git gives the file's content, which is a SHA-1.
    size: in bytes.
    """

    sha256: str = ""
    git_blob: str = ""
    size: int | None = None

    def __str__(self) -> str:
        known = {"sha256": self.sha256, "git blob": self.git_blob}
        return " and ".join(f"{name} {value}..." for name, value in known.items() if value)

    def fits(self, path: pathlib.Path, sha256: str) -> bool:
        """Whether the file at `path`, whose digest is known already, is the one meant."""
        if self.size is not None and path.stat().st_size != self.size:
            return False
        if self.git_blob and git_blob(path) != self.git_blob:
            return False
        return sha256.startswith(self.sha256)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long and how much. timeout: seconds without a byte; total: seconds for everything;
    tries: after broken connections; pause: seconds before the second try, doubled each time."""

    timeout: float = 30.0
    total: float = 2 * 3600.0
    tries: int = 5
    pause: float = 1.0
    most_bytes: int = MOST_BYTES


def sha256(path: pathlib.Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: pathlib.Path) -> str:
    """The name of a file's content in a git repository."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    path: pathlib.Path,
    expected: Expected | None = None,
    *,
    advice: str = "download it elsewhere and copy it here",
    say: Callable[[str], object] = print,
    limits: Limits | None = None,
) -> str:
    """Fetches `url` to `path` unless it is there; two processes do it once.

    Args:
      url: https, or http on this machine.
      path: where to; its folder is made.
      expected: what is published about the file.
      advice: what a user whose machine is offline can do.
      say: where lines for the user go.
      limits: of time and size.

    Returns:
      The file's sha256.

    Raises:
      DownloadError: it cannot be reached, is not what was expected, is too large, takes too long,
        or there is no room for it.
    """
    expected, limits = expected or Expected(), limits or Limits()
    _require_safe(url, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with cache.lock(lock, lambda: say(f"another process is fetching {path.name}; waiting")):
            if not path.exists():
                _fetch(url, path, expected, advice, say, limits)
            return sha256(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(path) from error
        raise DownloadError(
            f"{path}: cannot be written ({error.strerror or error}); set ZOO_CACHE to a folder "
            "that can be"
        ) from error


def pinned(path: pathlib.Path) -> str:
    """The digest that the file at `path` had when it was first fetched, or ""."""
    pin = path.with_name(f"{path.name}.sha256")
    return pin.read_text("ascii").strip() if pin.exists() else ""


def pin(path: pathlib.Path, digest: str) -> None:
    """Records the digest of the file at `path`."""
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}\n", "ascii")


def _fetch(
    url: str,
    path: pathlib.Path,
    expected: Expected,
    advice: str,
    say: Callable[[str], object],
    limits: Limits,
) -> None:
    part = path.with_name(f"{path.name}.part")
    deadline = time.monotonic() + limits.total
    resumed = part.exists()
    say(f"fetching {url}" + (f", from byte {part.stat().st_size:,} on" if resumed else ""))
    pause = limits.pause
    for attempt in range(1, limits.tries + 1):
        try:
            _receive(url, part, expected, limits, deadline)
            break
        except _Broken as error:
            if attempt == limits.tries:
                raise DownloadError(
                    f"{url}: broke off {limits.tries} times, the last time because {error}; what "
                    f"has come is kept, so run the same again to go on, or {advice}"
                ) from error
            time.sleep(pause)
            pause *= 2
        except urllib.error.URLError as error:
            raise DownloadError(f"{url}: {_reason(error)}; {advice}") from error
    digest = sha256(part)
    known = pinned(path)
    if expected.fits(part, digest) and digest.startswith(known):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        pin(path, digest)
        part.replace(path)
        _validator(part).unlink(missing_ok=True)
        return
    size = part.stat().st_size
    part.unlink()
    _validator(part).unlink(missing_ok=True)
    if resumed:  # what was there before may have been of another file
        _fetch(url, path, expected, advice, say, limits)
        return
    wanted = str(expected) or f"sha256 {known} as when it was first fetched"
    raise DownloadError(
        f"{url}: what came, {size:,} bytes with sha256 {digest}, is not the file that is recorded "
        f"({wanted}); it was thrown away, so try again later, or {advice}"
    )


def _receive(
    url: str, part: pathlib.Path, expected: Expected, limits: Limits, deadline: float
) -> None:
    """Appends to `part` what is missing of it.

    Raises _Broken where the connection broke, URLError where none came about.
    """
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "jax-video-zoo", "Accept-Encoding": "identity"}
    validator = _validator(part).read_text("ascii") if _validator(part).exists() else ""
    if start and not (validator or str(expected)):
        start = 0  # nothing would tell the halves of two files apart
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    opener = urllib.request.build_opener(_SafeRedirects(url))
    try:
        with opener.open(
            urllib.request.Request(url, headers=headers), timeout=limits.timeout
        ) as answer:
            total = _total(answer, start)
            if answer.status != 206:
                start = 0  # the server sends all of it, because it cannot or must not resume
            _require_size(url, total, expected, limits)
            if total is not None and shutil.disk_usage(part.parent).free < total - start:
                raise _no_room(part, total - start)
            _validator(part).write_text(_validator_of(answer), "ascii")
            _copy(url, answer, part, start, limits, deadline)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # it was whole already
            part.unlink()
            raise _Broken("the server has no more of it") from error
        if error.code >= 500 or error.code == 429:
            raise _Broken(f"the server answered {error.code} {error.reason}") from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionResetError | TimeoutError):
            raise _Broken(f"of {_reason(error)}") from error
        raise
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Broken(f"of {type(error).__name__}") from error
    size = part.stat().st_size
    if total is not None and size < total:
        raise _Broken(f"the connection ended after {size:,} of {total:,} bytes")


def _copy(
    url: str,
    answer: http.client.HTTPResponse,
    part: pathlib.Path,
    start: int,
    limits: Limits,
    deadline: float,
) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        position = start
        while block := answer.read1(_BLOCK):
            position += len(block)
            if position > limits.most_bytes:
                raise DownloadError(f"{url}: more than {limits.most_bytes:,} bytes; not fetched")
            file.write(block)
            if time.monotonic() > deadline:
                raise DownloadError(
                    f"{url}: not done after {limits.total:.0f} s with {position:,} bytes; what has "
                    "come is kept, so run the same again to go on"
                )
        file.truncate()


def _total(answer: http.client.HTTPResponse, start: int) -> int | None:
    """The length of the whole file, where the server says it."""
    if answer.status == 206:
        found = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", answer.headers.get("Content-Range", "")
        )
        if not found or int(found[1]) != start:
            raise _Broken("the server sent another part than was asked for")
        return int(found[2])
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _require_size(url: str, total: int | None, expected: Expected, limits: Limits) -> None:
    if total is None:
        return
    if expected.size is not None and total != expected.size:
        raise DownloadError(
            f"{url}: the server has {total:,} bytes, not {expected.size:,} as recorded; not fetched"
        )
    if total > limits.most_bytes:
        raise DownloadError(f"{url}: {total:,} bytes are more than weights have; not fetched")


def _validator(part: pathlib.Path) -> pathlib.Path:
    """Where that name of the server's for the file's present content is kept by which it tells
    whether the rest still belongs to the part."""
    return part.with_name(f"{part.name}.etag")


def _validator_of(answer: http.client.HTTPResponse) -> str:
    tag = answer.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):  # a weak one does not promise the same bytes
        tag = answer.headers.get("Last-Modified", "")
    return tag if tag.isascii() and len(tag) < 200 else ""


def _require_safe(url: str, first: str) -> None:
    """Weights come encrypted, except from this machine and on the way of a request to it."""
    parts, origin = urllib.parse.urlsplit(url), urllib.parse.urlsplit(first)
    local = parts.hostname in _LOOPBACK and origin.hostname in _LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise DownloadError(f"{url}: only https addresses are fetched")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, first: str) -> None:
        self.first = first

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001
        _require_safe(newurl, self.first)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: urllib.error.URLError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    return f"cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})"


def _no_room(path: pathlib.Path, size: int | None = None) -> DownloadError:
    needed = f"{size:,} bytes of room" if size else "more room"
    with contextlib.suppress(OSError):
        needed += f", {shutil.disk_usage(path.parent).free:,} are free"
    return DownloadError(
        f"{path.parent}: needs {needed}; make room or set ZOO_CACHE to another folder"
    )
