"""What the program imports from beside it."""


def double(x):
    return 2 * x
