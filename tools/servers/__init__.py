"""Real servers as local processes, for tests and benchmarks that have no cluster."""
