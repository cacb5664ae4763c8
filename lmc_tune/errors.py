"""What a user can mend."""


class UserError(Exception):
    """Told as one plain message, without a traceback; the message says what to do."""

    exit_code = 2
