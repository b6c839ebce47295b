"""Where records come from: tables by URI, and how their cells become typed values.

Importing the package is cheap; a source loads what it needs when it is opened.
"""
