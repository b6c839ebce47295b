"""The conditions of a deployment, as tables. Pure, one module per mode.

Each condition is decided by a :data:`~.common.ConditionChain`, an ordered tuple of named checks:
the first check that returns a result decides. A mode's chains are in its view's ``conditions``;
checks that several modes share are in ``common``, those of model servers and stream workers in
``served``.
"""
