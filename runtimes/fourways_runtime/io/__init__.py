"""All access to the outside: files, objects, databases, brokers.

May use ``scoring`` and the base; does not depend on workloads or on the servers' protocol.
"""
