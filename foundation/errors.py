"""The exception tree. Every message is one line: what was given, why it is wrong, what to do."""


class FulcrumError(Exception):
    """An error that a user can correct; the command line prints one line and exits with 2."""


class InputError(FulcrumError):
    """A question, an option or a number that cannot be used."""


class DocumentError(FulcrumError):
    """A document that cannot be read."""


class IndexStateError(FulcrumError):
    """A passage index that is damaged, or was built with other settings."""


class ModelError(FulcrumError):
    """A language or embedding model that cannot be found, loaded or used."""


class UnavailableError(ModelError):
    """A model's server that is down, silent or busy; the same request may succeed later."""


class NotReadyError(ModelError):
    """A model that is being loaded, or a replica that was lost; says nothing of where it is."""


class DataError(FulcrumError):
    """An evaluation or training file with a wrong or missing field."""


class BusyError(FulcrumError):
    """Too many requests at once; the same request may succeed later."""


class ClosingError(FulcrumError):
    """The server is shutting down, so an answer is missing or incomplete."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; ask again in a moment")
