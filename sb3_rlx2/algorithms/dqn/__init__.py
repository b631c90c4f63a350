"""DQN with RLx2."""
