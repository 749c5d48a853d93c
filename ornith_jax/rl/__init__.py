"""The objective: advantages, staleness, log-probabilities, the loss, and batches of packed sequences."""
