"""Video in and out: probe, decode, encode and sample, on a bundled ffmpeg."""

from zoo.video.clip import Clip, ClipRequest
from zoo.video.decode import decode, decode_many
from zoo.video.encode import encode, encode_many
from zoo.video.errors import BrokenVideo, NotAVideo, VideoError, VideoTimeout, VideoTooLarge
from zoo.video.probe import VideoInfo, probe
from zoo.video.shrink import shrink

__all__ = [
    "BrokenVideo",
    "Clip",
    "ClipRequest",
    "NotAVideo",
    "VideoError",
    "VideoInfo",
    "VideoTimeout",
    "VideoTooLarge",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "probe",
    "shrink",
]
