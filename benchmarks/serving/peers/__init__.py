"""The servers compared with ours, each configured for maximum speed.

Each is run by path with the Python of its own environment and the arguments MODEL and PORT; none
imports anything of this project.
"""
