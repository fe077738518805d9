"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """One sentence that names the file, field or value and says what to do. The command line prints it and exits with 2."""
