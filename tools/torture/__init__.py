"""Chaos tools: they disturb what they test, and report the result."""
