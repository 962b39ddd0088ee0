"""One module a job, in reading order: the only place where independent parts meet."""
