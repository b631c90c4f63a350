"""TD3 with RLx2."""
