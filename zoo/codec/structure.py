"""Which frames of a group of pictures are coded when, and from which frames they are predicted.

Every eighth frame is an anchor, predicted from the two anchors before it; the frames in between are
predicted from one frame on each side, halving the gap each time. All frames of one depth are
independent of each other, so they are fitted, coded and decoded together, a few at a time.
"""

import dataclasses
import itertools

ANCHOR_DISTANCE = 8
# Frames that share one network and are coded together; more would need more memory at once.
FRAMES_PER_PIECE = 8


@dataclasses.dataclass(frozen=True)
class Piece:
    """Frames that are coded together.

    Attributes:
      depth: 0 for a frame without prediction, 1 for anchors, 2 and up for frames in between.
      frames: their numbers in the group.
      references: for each frame the two that it is predicted from; empty at depth 0.
    """

    depth: int
    frames: tuple[int, ...]
    references: tuple[tuple[int, int], ...]


def pieces(count: int) -> list[Piece]:
    """The pieces of a group of `count` frames, in the order of coding."""
    anchors = [*range(0, count - 1, ANCHOR_DISTANCE), count - 1] if count > 1 else [0]
    result = [Piece(0, (0,), ())]
    for place in range(1, len(anchors)):
        before = anchors[max(place - 2, 0)]
        result.append(Piece(1, (anchors[place],), ((anchors[place - 1], before),)))
    gaps = list(itertools.pairwise(anchors))
    depth = 2
    while gaps := [(low, high) for low, high in gaps if high - low > 1]:
        middles = [(low + high) // 2 for low, high in gaps]
        for first in range(0, len(gaps), FRAMES_PER_PIECE):
            part = slice(first, first + FRAMES_PER_PIECE)
            result.append(Piece(depth, tuple(middles[part]), tuple(gaps[part])))
        halves = zip(gaps, middles, strict=True)
        gaps = [half for (low, high), mid in halves for half in ((low, mid), (mid, high))]
        depth += 1
    return result
