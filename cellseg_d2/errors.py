"""The one exception type that tools show to users as a sentence instead of a traceback."""


class CellSegError(Exception):
    """Something about the input is wrong. The message says what, where, and what to do about it, in one sentence."""
