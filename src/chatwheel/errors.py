"""The errors that Chatwheel raises on purpose.

Each message is one line that says what is wrong, where, and what to do. The command line prints that
line and exits with 2; the API turns it into OpenAI's error body with `status`, `type`, `code` and `param`.
"""

from __future__ import annotations


class ChatwheelError(Exception):
    """Something that the user can mend. Everything else is a bug and keeps its traceback."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


class InputError(ChatwheelError):
    """A file, a field, an option or a recipe is not what was expected."""


class DivergedError(InputError):
    """Training went to infinity: its settings are to be mended."""


class ModelNotFoundError(ChatwheelError):
    """No model has that name and no directory there holds one."""

    status = 404


class ContextLengthError(ChatwheelError):
    """A prompt (with the room asked for the answer) is longer than the model's context."""


class OverloadedError(ChatwheelError):
    """The engine's queue is full; the client should try again a little later."""

    status = 429
    type = "rate_limit_error"


class StorageError(ChatwheelError):
    """The disk is full, read-only, or not allowed; what was there before is unharmed."""

    status = 507
    type = "server_error"


class UnavailableError(StorageError):
    """The database is away, or too busy; what was asked is not done, and may be asked again in a moment."""

    status = 503
