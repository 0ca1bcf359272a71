"""Check whether networks may be unpickled.

Unpickling can run any code. It is therefore limited to networks that this user trained on this computer, unless the
user permits other networks. Digests of the networks are signed with a random key of the user, which is in
``paretofit/signing_key`` in ``$XDG_DATA_HOME`` or ``~/.local/share``. Digests without a signature would prove nothing,
because anyone who replaces a network can also replace its digest.
"""

import hmac
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from paretofit.core import InputError, hash_json

KEY_BYTES = 32
REMEDY = (
    "loading them unpickles them, which can run any code; if you trust their source, use --allow-pickle "
    "(allow_pickle=True)"
)
_is_permitted: ContextVar[bool] = ContextVar("is_unpickling_permitted", default=False)


@contextmanager
def permit_unpickling(is_permitted: bool = True) -> Iterator[None]:
    """Permit the loading of networks that were not trained by this user on this computer, inside this context.

    With `is_permitted` False, nothing changes: a permission of an enclosing context remains valid.
    """
    token = _is_permitted.set(is_permitted or _is_permitted.get())
    try:
        yield
    finally:
        _is_permitted.reset(token)


def is_unpickling_permitted() -> bool:
    """Return whether a context of `permit_unpickling` permits networks that were not trained by this user here."""
    return _is_permitted.get()


def sign_digests(digests: Sequence[str]) -> str:
    """Return the signature of digests with the key of the user, in hexadecimal digits."""
    return hmac.new(_read_key(), hash_json(list(digests)).encode(), "sha256").hexdigest()


def is_signed(digests: Sequence[str], signature: object) -> bool:
    """Return whether the signature of digests, from a file, was made with the key of the user."""
    return isinstance(signature, str) and hmac.compare_digest(sign_digests(digests).encode(), signature.encode())


def check_trust(path: Path, digests: Sequence[str], recorded_digests: object, signature: object) -> None:
    """Check that networks were trained by this user on this computer, unless `permit_unpickling` permits others.

    Parameters
    ----------
    path : Path
        File of the record, for messages.
    digests : sequence of str
        Digests of the networks.
    recorded_digests, signature
        Entries ``sha256`` and ``signature`` of the record; None if they are missing.

    Raises
    ------
    InputError
        If the record has no valid signature, or its digests are not those of the networks.
    """
    if is_unpickling_permitted():
        return
    if recorded_digests != list(digests):
        reason = "has no digests of its networks" if recorded_digests is None else "has other digests than its networks"
        raise InputError(f"{path} {reason}, so they were not trained here or have been replaced; {REMEDY}")
    if not is_signed(digests, signature):
        raise InputError(f"the networks of {path} were not trained by this user on this computer; {REMEDY}")


def _read_key() -> bytes:
    """Read the key of the user, and create its file if there is none.

    If the file cannot be created or does not contain a key, return a key that is only valid in this process.
    """
    parent = os.environ.get("XDG_DATA_HOME", "")
    with suppress(OSError, RuntimeError):  # the home directory is missing or cannot be written
        folder = (Path(parent) if Path(parent).is_absolute() else Path.home() / ".local" / "share") / "paretofit"
        path = folder / "signing_key"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".signing_key-") as file:  # only the user may read it
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                with suppress(FileExistsError):  # another process was faster
                    os.link(file.name, path)
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
    return _create_process_key()


@cache
def _create_process_key() -> bytes:
    """Return a random key, which is the same at every call in this process."""
    return secrets.token_bytes(KEY_BYTES)
