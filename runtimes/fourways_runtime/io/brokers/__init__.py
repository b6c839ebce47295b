"""Brokers: where events come from and where they are published to, one client and source each."""
