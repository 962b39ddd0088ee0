"""What a run will take: bytes by kind, work and time, from a configuration alone."""
