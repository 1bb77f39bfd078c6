"""The error that a user can mend."""


class UserError(ValueError):
    """A mistake in a config, a file or the data, told in one sentence that says what to do.

    The command lines print its text alone; any other exception keeps its traceback.
    """
