"""What ``import litserve.transport`` finds: names that say where they are used that nothing lies
between the server and its workers that a program could reach."""

SOCKETS = "litplex passes requests and answers over sockets of its own; leave it out"
