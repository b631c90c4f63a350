"""SAC with RLx2."""
