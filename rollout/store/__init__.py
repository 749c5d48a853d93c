"""The durable log of a run: one record per line, acknowledged when it is on the disk, read by people and by grain."""
