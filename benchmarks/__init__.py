"""Benchmarks. Each prints its figures as `figure NAME VALUE GOAL ok|short`, one per line."""
