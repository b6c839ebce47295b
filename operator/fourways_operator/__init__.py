"""The operator: it watches ModelDeployments and makes the cluster match them.

Decisions (``plan``, ``status``, ``facts``) are pure; ``reconcile`` acts through ``cluster``.
"""
