"""Measurements; each prints `figure NAME VALUE GOAL ok|short`, one a line."""
