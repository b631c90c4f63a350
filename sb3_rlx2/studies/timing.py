"""How long the workers of a study wait for each other, and for a storage that went away."""

# All workers of a study must agree on the first four, so they are no options.
HEARTBEAT_INTERVAL = 15  # seconds
GRACE_PERIOD = 90  # seconds without a heartbeat after which a worker counts as dead
MAX_RETRIES = 3  # a trial that kills its worker each time must not go on for ever
LOCK = 30  # seconds after which a journal's lock opens whose holder died; one that was only suspended has lost it
OUTAGE = 600.0  # seconds that a worker waits for a storage that went away
OPENING = 5.0  # seconds that a worker waits for one as it begins: it may be recovering from a crash
POLL_INTERVAL = 1.0  # seconds between looks while other workers finish
