"""Errors that a user can fix."""


class UserError(Exception):
    """An error shown as one plain message, without a traceback; the message says what to do."""

    exit_code = 2
