"""Errors of the disk, told with the place and what to do.

Book: the page on reliability.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from picojepa.config import cache_folder

ROOM = "make room, or name another folder in PICOJEPA_CACHE; what is done is kept"
PLACE = "name a folder that can be written in PICOJEPA_CACHE"
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EROFS: PLACE,
    errno.EACCES: PLACE,
    errno.EPERM: PLACE,
}


@contextmanager
def explained() -> Iterator[None]:
    """A block, or a decorated function, whose errors of the disk hold the path and the remedy.

    Raises:
        OSError: a full disk, or one that cannot be written; other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        remedy, said = REMEDIES.get(error.errno or 0), error.strerror or ""
        if not remedy or remedy in said:
            raise
        raise OSError(error.errno, f"{said}; {remedy}", error.filename or str(cache_folder())) from error
