"""Code that creates the examples' models and tables: one module per example, and shared modules.

``artifacts``, ``magika_package`` and ``file_bytes`` need at most numpy, so that ``prepare.py`` runs
without the training dependencies.
"""
