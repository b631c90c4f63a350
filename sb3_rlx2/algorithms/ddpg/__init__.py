"""DDPG with RLx2."""
