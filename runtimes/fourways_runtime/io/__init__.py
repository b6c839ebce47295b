"""Everything that reads from or writes to the outside: files, objects, databases, brokers.

May use ``scoring`` and the base; knows neither workloads nor the protocol of servers.
"""
