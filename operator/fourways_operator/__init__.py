"""The operator: it watches ModelDeployments and makes the cluster match them.

Deciding (``plan``, ``status``, ``facts``) is pure; acting is ``reconcile`` with ``cluster``.
"""
