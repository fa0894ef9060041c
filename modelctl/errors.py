"""What ends a command."""


class CommandError(Exception):
    """One sentence that says what is wrong and what to do; the command ends with exit code 1."""
