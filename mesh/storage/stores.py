"""Opens the store of an account, whatever its type: the one place that knows all of them."""

from collections.abc import Sequence
from pathlib import Path

from mesh.storage.accounts import Account, LocalAccount, NoAccount, S3Account
from mesh.storage.local import open_files, open_local
from mesh.storage.port import ObjectStore
from mesh.storage.s3 import S3Stores


class Stores:
    """`local_roots` are the folders in which keys of type `local` may have their root, and below
    which files may be named by their own path."""

    def __init__(self, local_roots: Sequence[Path] = ()) -> None:
        self._local_roots = tuple(local_roots)
        self._s3 = S3Stores()

    def open(self, key: str, account: Account, bucket: str) -> ObjectStore:
        """`bucket`, where it is not empty, wins over the account's. `key` is for error texts."""
        match account:
            case S3Account():
                return self._s3.open(key, account, bucket)
            case LocalAccount():
                return open_local(key, account, bucket, self._local_roots)
            case NoAccount():
                return open_files(self._local_roots)

    def close(self) -> None:
        self._s3.close()
