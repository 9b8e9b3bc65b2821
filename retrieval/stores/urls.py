"""Which stores of passages there are, by their URLs."""

from foundation.errors import InputError

LOCAL_URL = "faiss"
POSTGRES_SCHEMES = ("postgresql://", "postgres://")
OPTION = "--index"


def check_url(url: str | None) -> None:
    """Check the URL of a store; nothing is opened.

    Raises:
        InputError: It is of no kind that is supported, or names no database.
    """
    if url is None or url == LOCAL_URL:
        return
    if not url.startswith(POSTGRES_SCHEMES):
        scheme, _, _ = url.partition(":")  # not the rest, which may hold a password
        raise InputError(
            f"{OPTION} {scheme} is not supported; give {LOCAL_URL!r} or "
            "postgresql://user:password@host:port/database, or leave it out"
        )
    from foundation.postgres import parse  # brings SQLAlchemy

    parse(url, OPTION)
