"""Numbers that both kernels and others need; imports neither numba nor torch."""

import math

# Of a tile: 64 float32. Wide enough to hide the latency of the multiply-add, narrow enough that half of a 256-feature tile of
# the input stays in a 32 KiB L1 cache.
TILE_BYTES = 256

LINE_BYTES = 64  # of a cache line

# SB3's squashed Gaussian
EPSILON = 1e-6  # as SB3's TanhBijector
LOG_STD_MIN, LOG_STD_MAX = -20, 2  # as SB3's SAC
LOG_SQRT_2_PI = math.log(math.sqrt(2 * math.pi))
