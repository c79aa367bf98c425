"""A module that the program imports from its own folder."""


def double(x):
    return 2 * x
