"""What an operator can mend about a model package."""


class PackageError(Exception):
    """A package, or the source of one, is not usable; the message names the file."""
