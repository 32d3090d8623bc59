"""Where images come from: one reader for the generator and for training.

A source lists names and hands out the bytes of a name. It may be pickled to any number of
workers; each opens its own files on first use.
"""
import os
from pathlib import Path

EXTENSIONS = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


def is_image_name(name: str) -> bool:
    """Whether a file name says that it is an image; hidden files are none."""
    base = name.rpartition('/')[2]
    return base.lower().endswith(EXTENSIONS) and not base.startswith('.')


class FolderSource:
    """Images in a folder and its subfolders.

    Args:
        root (str | Path): The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    kind = 'folder'

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f'there is no folder {root}.')

    def names(self) -> list[str]:
        """All images, relative to the folder, with slashes, sorted.

        Links to folders are followed, each folder once.
        """
        found, visited = [], set()
        for folder, folders, files in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith('.'))
            real = os.path.realpath(folder)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            prefix = Path(os.path.relpath(folder, self.root)).as_posix()
            prefix = '' if prefix == '.' else prefix + '/'
            found += [prefix + name for name in files if is_image_name(name)]
        return sorted(found)

    def read_bytes(self, name: str) -> bytes:
        """The content of one image file.

        Args:
            name (str): A name that :meth:`names` lists.

        Returns:
            bytes: The file.
        """
        with open(os.path.join(self.root, name), 'rb') as file:
            return file.read()


def open_source(path: str | Path) -> FolderSource:
    """Open images wherever they are.

    Args:
        path (str | Path): A folder.

    Returns:
        FolderSource: The source.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If what is there is no image source.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'there are no images at {path}: give a folder of images.')
    if os.path.isdir(path):
        return FolderSource(path)
    raise ValueError(f'{path} is no image source: give a folder of images.')
