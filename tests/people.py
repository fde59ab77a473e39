"""People as joints, for tests that need no picture of them."""

import numpy as np
from animate_anywhere.vision.pose import PoseTrack


def track_of(keypoints, width=512, height=512, **parts):
    return PoseTrack(np.asarray(keypoints, dtype=np.float64), width, height, **parts)


def body(x=256.0, y=256.0, confidence=1.0):
    """A person [18, 3] whose joints spread around (x, y)."""
    random = np.random.default_rng(1)
    return np.column_stack([random.uniform(-150, 150, (18, 2)) + np.array([x, y]), np.full(18, confidence)])
