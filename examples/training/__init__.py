"""How the examples' models and tables are made: one module an example, and what they share.

``artifacts``, ``magika_package`` and ``file_bytes`` need numpy at the most, so that
``prepare.py`` runs without the training dependencies.
"""
