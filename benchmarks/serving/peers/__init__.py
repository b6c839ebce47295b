"""The servers measured beside ours, each set up to be as fast as it can be.

Each is run by path with the Python of its own environment and told MODEL and PORT; none imports
anything of this project.
"""
