"""Features, the statistics kept of them, and the scores computed from these."""
