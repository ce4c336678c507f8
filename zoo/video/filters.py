"""ffmpeg filter texts: which frames pass, and how they are scaled.

Scaling is exact: `accurate_rnd+full_chroma_int` gives the colours of the conversion matrix, where
swscale's default is up to 3 levels too dark. RGB passes through planar gbrp, which swscale writes
faster than packed rgb24.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

Size = tuple[int, int] | int | None
Fit = Literal["stretch", "crop", "pad"]
Pixels = Literal["rgb", "gray", "rgba"]

# Pixels to (formats that lead to packed frames, the last as planes or None, channels).
FORMATS = {
    "rgb": ("format=gbrp,format=rgb24", "format=gbrp", 3),
    "gray": ("format=gray", "format=gray", 1),
    "rgba": ("format=rgba", "format=rgba", 4),
}
_EXACT = "flags=bilinear+accurate_rnd+full_chroma_int"


def scaling(size: Size, fit: Fit) -> str:
    """From upright stored frames to the requested size, square pixels assumed."""
    if size is None:
        return f"scale={_EXACT}"
    if isinstance(size, int):
        # The longer side is rounded to an integer, not to an even number.
        wide = f"if(lt(iw,ih),{size},max(1,round(iw*{size}/ih)))"
        high = f"if(lt(iw,ih),max(1,round(ih*{size}/iw)),{size})"
        return f"scale=w='{wide}':h='{high}':{_EXACT}"
    h, w = size
    if fit == "stretch":
        return f"scale={w}:{h}:{_EXACT}"
    if fit == "crop":
        wide, high = f"max({w},round(iw*{h}/ih))", f"max({h},round(ih*{w}/iw))"
        return f"scale=w='{wide}':h='{high}':{_EXACT},crop={w}:{h}:exact=1"
    wide, high = f"min({w},max(1,round(iw*{h}/ih)))", f"min({h},max(1,round(ih*{w}/iw)))"
    # In planes of equal size a bar may be odd; the format comes first for that reason.
    return f"scale=w='{wide}':h='{high}':{_EXACT}"


def padding(size: Size, fit: Fit) -> str:
    """Black bars around frames that are already RGB or grey, after `scaling`."""
    if fit == "pad" and isinstance(size, tuple):
        h, w = size
        return f",pad={w}:{h}:(ow-iw)/2:(oh-ih)/2"
    return ""


def selection(
    first: int | None,
    *,
    unit: Fraction | None = None,
    stride: int = 1,
    fps: Fraction | None = None,
    indices: Sequence[int] | None = None,
) -> str:
    """A filter and a comma, or nothing, that drops the frames that are not asked for.

    Args:
      first: smallest time stamp to let pass; None for all.
      unit: seconds of one unit of `first`; None where it is 0 or in microseconds.
      stride, fps, indices: as in `zoo.video.decode`; indices sorted, without repeats.
    """
    if fps is not None:
        # The frame on display at tick k is the last one whose time, rounded up, is at most k.
        # Containers that count milliseconds round times by up to half a one: allowed for.
        zero = "PTS-STARTPTS" if first is None else "PTS"
        start = float((first or 0) * (unit or Fraction(1, 1_000_000)))
        grid = f"fps={fps}:start_time={start:.9f}:round=up"
        return f"settb=1/1000000,setpts={zero}-500,{grid},"
    passes = f"gte(pts,{first})" if unit or not first else f"gte(t,{first / 1e6:.6f})"
    passes = "1" if first is None else passes
    if indices is not None:
        # Variable 0 counts frames from `first` on.
        return f"select='if({passes},st(0,ld(0)+1);{_member(indices, 'ld(0)-1')})',"
    if stride > 1:
        return f"select='if({passes},st(0,ld(0)+1);not(mod(ld(0)-1,{stride})))',"
    return "" if first is None else f"select='{passes}',"


def _member(values: Sequence[int], name: str) -> str:
    """Whether `name` is one of the sorted values, by nested comparisons of logarithmic depth."""
    if len(values) == 1:
        return f"eq({name},{values[0]})"
    if values[-1] - values[0] == len(values) - 1:
        return f"between({name},{values[0]},{values[-1]})"
    middle = len(values) // 2
    left, right = _member(values[:middle], name), _member(values[middle:], name)
    return f"if(lt({name},{values[middle]}),{left},{right})"


def lookup(values: Sequence[int], name: str = "N", low: int = 0) -> str:
    """values[name - low] as an expression of logarithmic depth."""
    if len(values) == 1:
        return str(values[0])
    middle = len(values) // 2
    left = lookup(values[:middle], name, low)
    right = lookup(values[middle:], name, low + middle)
    return f"if(lt({name},{low + middle}),{left},{right})"
