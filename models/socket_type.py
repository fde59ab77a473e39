"""What is told where a value of another type arrives at a socket. The host's links do not check it for custom nodes."""


def wrong_type(socket: str, value: object, expected: str, remedy: str) -> ValueError:
    """Return the error for ``value`` at ``socket``. remedy: a sentence without its full stop."""
    found = "nothing" if value is None else f"a value of the type {type(value).__name__}"
    return ValueError(f"{socket}: {found} arrived, where {expected} is expected. {remedy}.")
