"""Rigs of the tests on a cluster."""
