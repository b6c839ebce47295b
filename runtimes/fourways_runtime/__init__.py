"""What runs in every workload: one pipeline, and thin entry points around it.

Owns fetching, models, sources, the prediction store and the gateway. Never imports the operator.
"""
