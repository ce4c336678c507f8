"""Typed errors of video input and output; each names the file, the reason and what to do."""


class VideoError(ValueError):
    """A video could not be read or written.

    Attributes:
      source: display name of the file, or of the bytes.
      reason: what is wrong, without the name.
      advice: what to do about it.
    """

    default_advice = "check the file"

    def __init__(self, source: str, reason: str, advice: str | None = None) -> None:
        self.source = source
        self.reason = reason
        self.advice = advice or self.default_advice
        super().__init__(source, reason, self.advice)

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}; {self.advice}"


class NotAVideo(VideoError):
    """Empty, not a container that is accepted, or without a video stream."""

    default_advice = "pass a video file (MP4, MOV, MKV, WebM, AVI, GIF, ...)"


class BrokenVideo(VideoError):
    """Truncated or corrupt.

    Attributes:
      good_frames: frames known to be undamaged among those asked for.
    """

    default_advice = "replace the file, or leave it out"

    def __init__(
        self, source: str, reason: str, advice: str | None = None, *, good_frames: int = 0
    ) -> None:
        super().__init__(source, reason, advice)
        self.good_frames = good_frames

    def __reduce__(self) -> tuple:
        return _broken, (self.source, self.reason, self.advice, self.good_frames)


class VideoTooLarge(VideoError):
    """More pixels or bytes than the caller allowed."""

    default_advice = "ask for fewer or smaller frames, or raise max_bytes"


class VideoTimeout(VideoError):
    """Took longer than the caller allowed."""

    default_advice = "ask for fewer frames, or raise timeout"


def _broken(source: str, reason: str, advice: str, good_frames: int) -> BrokenVideo:
    """Rebuilds a BrokenVideo that crosses a process boundary."""
    return BrokenVideo(source, reason, advice, good_frames=good_frames)
