"""CrossQ with RLx2."""
