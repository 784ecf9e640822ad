"""Errors of turning one file into another."""

from profiles.errors import UserError


class ExportError(UserError):
    """A model that cannot be converted as it is, or a tool that is missing here."""
