"""The programs: one package or module for each process that ``python -m fourways_runtime`` starts.

Owns which parts a workload is built of, when it starts and stops, and what it reports. The only
floor that may use all the others.
"""
