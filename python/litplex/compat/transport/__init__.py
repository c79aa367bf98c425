"""The module ``litserve.transport``: a program cannot replace the transport between the server and
its workers, and the names of this module raise an error that says so."""

SOCKETS = "litplex passes requests and responses over sockets of its own; leave it out"
