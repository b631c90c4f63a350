"""TQC with RLx2."""
