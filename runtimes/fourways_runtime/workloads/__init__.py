"""The programs: one package or module for each process that ``python -m fourways_runtime`` starts.

Owns which parts make up a workload, when it starts and stops, and what it reports. This is the only
layer that may import from all the others.
"""
