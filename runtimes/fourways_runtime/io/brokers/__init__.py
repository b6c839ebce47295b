"""Brokers: the sources and destinations of events, each with its own client."""
