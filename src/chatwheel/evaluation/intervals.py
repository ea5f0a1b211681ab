"""Between which values what was measured on a sample truly lies, with 95 %."""

from __future__ import annotations

import math

Z95 = 1.96


def wilson(share: float, n: int) -> tuple[float, float]:
    """Of a share of n (Wilson, 1927). Where ties count half, as in a preference, it is on the wide side."""
    middle, half = share + Z95**2 / (2 * n), Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + Z95**2 / n)), min(1.0, (middle + half) / (1 + Z95**2 / n))
