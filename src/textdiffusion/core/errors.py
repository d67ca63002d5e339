"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used: a file, an option, a configuration, a template.

    The message is one or two sentences: what is wrong, which value, what is allowed. The command line
    prints it without a traceback and exits with status 2.
    """
