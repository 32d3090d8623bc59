"""What a source of images can do, and which names it may give them."""
import io
from collections.abc import Iterable
from typing import BinaryIO

EXTENSIONS = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


def is_image_name(name: str) -> bool:
    """Whether a file name says that it is an image; hidden files are none."""
    base = name.rpartition('/')[2]
    return base.lower().endswith(EXTENSIONS) and not base.startswith('.')


def name_problem(name: str) -> str | None:
    """Say why a name that a file gives cannot be that of an image, or None where it can.

    A name is a path relative to the images' root: anything else could lead out of it.
    """
    if name.startswith('/'):
        return 'is an absolute path'
    if '..' in name.split('/'):
        return 'contains ".."'
    if not name or '\0' in name:
        return 'is no name of a file'
    return None


class NameRefused(PermissionError):
    """A name that leads, or might lead, out of the folder of the images."""


class ImageSource:
    """What every source can do."""

    kind: str
    path: str
    follow_links = False

    def names(self) -> list[str]:
        """The images: relative paths with slashes, sorted, each once."""
        raise NotImplementedError

    def read_bytes(self, name: str) -> bytes:
        """The content of one image file.

        Args:
            name (str): A name that :meth:`names` lists.

        Returns:
            bytes: The file.

        Raises:
            OSError: If it cannot be read.
        """
        raise NotImplementedError

    def open(self, name: str) -> BinaryIO:
        """One image file, for those who need its beginning only; like :meth:`read_bytes`."""
        return io.BytesIO(self.read_bytes(name))

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of this name, without a look into it."""
        raise NotImplementedError

    def select(self, names: Iterable[str]) -> 'ImageSource':
        """A source for these names only, quick to send to a worker."""
        return self
