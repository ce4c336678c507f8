"""Change points: where a sequence of vectors goes from one level to another."""

import numpy as np

# A change has to save as much as this many times log(n) steps' worth of noise.
_STRENGTH = 3.0


def find(vectors: np.ndarray, *, penalty: float | None = None, shortest: int = 2) -> list[int]:
    """Where new segments begin, so that squared distances to segments' means are least.

    The exact minimum of that sum plus `penalty` for each change (optimal partitioning; candidates
    that cannot win any more are left out: PELT, Killick, Fearnhead and Eckley 2012).

    Args:
      vectors: [n d], in the order of time.
      penalty: in squared units of the vectors; None to estimate it from the noise, which is half
        of the median squared distance of neighbours.
      shortest: vectors of a segment, at least.

    Returns:
      Places in 1..n-1, increasing; empty where nothing changes.

    Raises:
      ValueError: a vector is not finite, or the penalty or the length cannot be used.
    """
    if shortest < 1:
        raise ValueError(f"shortest is {shortest}; a segment has at least 1 vector")
    if penalty is not None and not penalty >= 0:
        raise ValueError(f"penalty is {penalty}; give a number of at least 0")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector is not finite; leave its video out")
    n = len(vectors)
    if n < 2 * shortest:
        return []
    x = vectors.astype(np.float64)
    x -= x.mean(axis=0)
    price = penalty
    if price is None:
        noise = np.median((np.diff(x, axis=0) ** 2).sum(1)) / 2
        # Of vectors that stay the same rounding is left, and is no change.
        price = _STRENGTH * float(np.log(n)) * max(float(noise), 1e-9)
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((x**2).sum(1))])
    best = np.full(n + 1, np.inf)
    best[0] = -price
    before = np.zeros(n + 1, int)
    starts, beaten = np.array([0]), np.array([n + 1])
    for end in range(shortest, n + 1):
        length = end - starts
        cost = squares[end] - squares[starts]
        cost -= ((sums[end] - sums[starts]) ** 2).sum(1) / length
        total = best[starts] + cost
        chosen = int(total.argmin())
        best[end], before[end] = total[chosen] + price, starts[chosen]
        # A start that is worse than beginning anew at `end` stays worse, from where that may end.
        beaten = np.where(total > best[end], np.minimum(beaten, end), beaten)
        left = end + 1 < beaten + shortest
        starts, beaten = starts[left], beaten[left]
        if end + 1 - shortest >= shortest:
            starts = np.append(starts, end + 1 - shortest)
            beaten = np.append(beaten, n + 1)
    result = []
    place = before[n]
    while place > 0:
        result.append(int(place))
        place = before[place]
    return result[::-1]
