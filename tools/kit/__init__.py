"""What tests and benchmarks both need, beside the servers."""
