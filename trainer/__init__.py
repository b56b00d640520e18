"""Training for perceivers-live: data, examples, the loop on one process or many, evaluation, and bundles for the daemon."""
