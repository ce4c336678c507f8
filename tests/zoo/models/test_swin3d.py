"""Video Swin: reference logits, and the table of offsets."""

import numpy as np
import pytest

from zoo.models import swin3d


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reference_logits(check_golden):
    check_golden("torchvision_swin3d_t", "swin3d_t")


def test_equal_offsets_share_a_row():
    index = swin3d.relative_positions((2, 3, 3))
    assert index.shape == (18, 18) and index.dtype == np.int64
    assert sorted(np.unique(index)) == list(range(3 * 5 * 5))
    places = np.indices((2, 3, 3)).reshape(3, -1).T
    rows = {}
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            rows.setdefault(tuple(a - b), set()).add(index[i, j])
    assert all(len(row) == 1 for row in rows.values())
