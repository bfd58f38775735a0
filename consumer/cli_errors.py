"""The failure a command expects, and tells in one line instead of a traceback."""


class CommandError(Exception):
    """A command cannot do what it was asked; shown as text, with what to do next, and the exit code `code`."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code
