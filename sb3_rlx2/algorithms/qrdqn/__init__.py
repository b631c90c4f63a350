"""QR-DQN with RLx2."""
