"""A module whose task fails."""


def fail(number):
    return 1 // number


if __name__ == "__channelexec__":
    fail(0)
