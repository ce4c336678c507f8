"""Typed errors of compressed files; each names the file, the place, the reason and what to do."""


class CodecError(ValueError):
    """A compressed file could not be read or written.

    Attributes:
      source: display name of the file.
      reason: what is wrong.
      advice: what to do about it.
      group: number of the group of pictures; None where it is not about one.
      offset: bytes from the file's start to what is wrong; None where it is not about a place.
    """

    default_advice = "check the file"

    def __init__(
        self,
        source: str,
        reason: str,
        advice: str | None = None,
        *,
        group: int | None = None,
        offset: int | None = None,
    ) -> None:
        self.source = source
        self.reason = reason
        self.advice = advice or self.default_advice
        self.group = group
        self.offset = offset
        super().__init__(source, reason, self.advice)

    def __str__(self) -> str:
        place = "" if self.group is None else f", group {self.group}"
        place += "" if self.offset is None else f", byte {self.offset}"
        return f"{self.source}{place}: {self.reason}; {self.advice}"


class NotACompressedVideo(CodecError):
    """The file does not begin as this format does."""

    default_advice = (
        "pass a file that `python -m zoo compress` wrote; one of its MP4s without a filter is "
        "played as it is"
    )


class WrongDecoder(CodecError):
    """The file needs another version of the format or another definition of the decoder."""

    default_advice = "decode it with the version that wrote it"


class BrokenFile(CodecError):
    """Cut short, or its bytes were changed."""

    default_advice = (
        "replace the file, or keep its good groups with on_error='skip' or 'freeze' "
        "(--on-error skip on the command line)"
    )


class CutShort(BrokenFile):
    """The file ends before its last group does; the groups before are whole."""

    default_advice = "fetch the whole file, or go on with the groups that are here"


class TooLarge(CodecError):
    """The header announces more than the caller allows."""

    default_advice = (
        "raise max_bytes (--max-bytes on the command line) if the file is trusted, "
        "or ask for a shorter part with start and end (--start, --end)"
    )


class CodecWarning(UserWarning):
    """The result is there, but not all of it, or not as it was wanted."""
