"""The one exception whose message is written for the user."""


class UserError(Exception):
    """A value from the user cannot be used: a file, an option, a configuration, a template.

    The message is one or two sentences: what is wrong, which value, what is allowed. The command line
    prints it without a traceback and exits with status 2.
    """


class MissingFile(UserError):
    """A file that should be there is not."""
