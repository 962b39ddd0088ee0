"""Did it work: metrics and comparison."""
