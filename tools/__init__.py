"""Tools to build, check and demonstrate this project."""
