"""Base class of image sources, and the rules for names of images."""
import io
from collections.abc import Iterable
from typing import BinaryIO

from .photo_files import PassedOver


def name_problem(name: str) -> str | None:
    """Return why a name that was read from a file cannot be the name of an image.

    A name is a path relative to the images' root: any other path could lead out of it.

    Args:
        name (str): The name.

    Returns:
        str | None: The problem, or None if there is none.
    """
    if name.startswith('/'):
        return 'is an absolute path'
    if '..' in name.split('/'):
        return 'contains ".."'
    if not name or '\0' in name:
        return 'is not a file name'
    return None


class NameRefused(PermissionError):
    """Raised for a name that leads, or might lead, out of the folder of the images."""


class ImageSource:
    """Base class of image sources.

    `names` sets `passed_over`, an account of the files that it leaves out.
    """

    kind: str
    path: str
    follow_links = False
    passed_over = PassedOver()

    def names(self) -> list[str]:
        """Return the images: relative paths with slashes, sorted, each once."""
        raise NotImplementedError

    def read_bytes(self, name: str) -> bytes:
        """Return the content of one image file.

        Args:
            name (str): One of the names that `names` returns.

        Returns:
            bytes: The content.

        Raises:
            OSError: If the file cannot be read.
        """
        raise NotImplementedError

    def open(self, name: str) -> BinaryIO:
        """Open one image file, for callers that need only its beginning; errors as in `read_bytes`."""
        return io.BytesIO(self.read_bytes(name))

    def __contains__(self, name: str) -> bool:
        """Return whether there is a file of this name; the file is not read."""
        raise NotImplementedError

    def select(self, names: Iterable[str]) -> 'ImageSource':
        """Return a source for these names only, which is cheap to send to a worker."""
        return self
