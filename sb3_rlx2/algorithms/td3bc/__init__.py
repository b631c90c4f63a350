"""TD3+BC: offline, from transitions that somebody else has collected."""
