"""Image sources for the generator and for training: folders, lists, COCO json and archives.

A source lists names and returns the bytes of a name. It can be copied to any number of worker
processes and threads. No name leads out of the folder of the images.
"""
import errno
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ..annotations.photos import PhotoTree
from ..annotations.read import read_json, read_lines
from .archives import TarSource, ZipSource
from .photo_files import Sorter
from .source_base import ImageSource, NameRefused, name_problem

KINDS = ('a folder, a list of images (.txt), a COCO json, a zip archive or an uncompressed tar '
         'archive')


class FolderSource(ImageSource):
    """Images in a folder and its subfolders.

    Links within the folder are followed; each folder is listed once.

    Args:
        root (str | Path): The folder; it may be a link itself.
        follow_links (bool): Whether links may lead out of the folder. If they may, anyone who can write
            there, or who made an archive that was unpacked there, can choose which files are read.
            Defaults to False.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    kind = 'folder'

    def __init__(self, root: str | Path, follow_links: bool = False) -> None:
        self.path = self.root = os.path.abspath(root)
        self.follow_links = follow_links
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f'there is no folder of images at {root}.')
        self._real = os.path.join(os.path.realpath(self.root), '')

    def names(self) -> list[str]:
        """Return the images: relative paths with slashes, sorted, each once.

        Raises:
            ValueError: If a link to a folder leads out of the root and `follow_links` is False.
        """
        found, visited, sorter = [], set(), Sorter()
        is_photo = sorter.is_photo
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=sorter.unreadable):
            try:
                real = self._resolve(folder)
            except NameRefused as error:
                raise ValueError(str(error)) from error
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(filter(sorter.is_folder_of_photos, folders))
            prefix = Path(os.path.relpath(folder, self.root)).as_posix()
            prefix = '' if prefix == '.' else prefix + '/'
            found += [prefix + name for name in files if is_photo(name)]
        self.passed_over = sorter.passed_over
        return sorted(found)

    def _resolve(self, path: str) -> str:
        real = os.path.realpath(path)
        if not self.follow_links and not os.path.join(real, '').startswith(self._real):
            raise NameRefused(f'{path} is reached by a link out of {self.root}, to {real}: if that is '
                              f'intended, set --follow-links (follow_links=True of a data set)')
        return real

    def locate(self, name: str) -> str:
        """Return the path of an image.

        Args:
            name (str): Name of the image.

        Returns:
            str: Its path, with links resolved.

        Raises:
            NameRefused: If the name leads out of the folder.
        """
        problem = name_problem(name)
        if problem:
            raise NameRefused(f'the name {name!r} {problem}: it may point out of the folder '
                              f'{self.root}')
        return self._resolve(os.path.join(self.root, name))

    def read_bytes(self, name: str) -> bytes:
        """Return the content of one image file."""
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BinaryIO:
        """Open one image file, which must be a regular file within the folder."""
        path = self.locate(name)
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would block
            raise OSError(errno.EINVAL, 'a folder' if stat.S_ISDIR(mode) else 'not a regular file',
                          path)
        return open(path, 'rb')

    def __contains__(self, name: str) -> bool:
        try:
            return os.path.isfile(self.locate(name))
        except NameRefused:
            return False


class _ListedSource(FolderSource):
    """Base class of sources that are the images of a folder that a file lists.

    Args:
        path (str | Path): The file with the list.
        root (str | Path, optional): Folder to which the names are relative. Defaults to the folder of
            the list.
        follow_links (bool): Whether links may lead out of that folder. Defaults to False.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None,
                 follow_links: bool = False) -> None:
        super().__init__(root or os.path.dirname(os.path.abspath(path)), follow_links)
        self.path = os.path.abspath(path)

    def listed(self) -> Iterable[str]:
        """Return the names as the file gives them."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return the listed images: relative paths with slashes, sorted, each once.

        Raises:
            FileNotFoundError: If none of the images exists.
            ValueError: If a name leads out of the root, or the file is of another kind.
        """
        found = set()
        tree = PhotoTree(self.root)
        for name in self.listed():
            if os.path.isabs(name):
                name = os.path.relpath(name, self.root)
            name = Path(os.path.normpath(name)).as_posix()
            if name.startswith('../') or name in ('.', '..'):
                raise ValueError(f'{self.path} lists {name}, which is outside of {self.root}: '
                                 f'set --root to a folder that contains all images.')
            found.add(tree.same(name) or name)
        if found and not any(os.path.exists(os.path.join(self.root, name)) for name in found):
            raise FileNotFoundError(f'none of the {len(found)} images that {self.path} lists is '
                                    f'in {self.root} (the first: {min(found)}): set --root to the '
                                    f'folder of the images.')
        return sorted(found)


class ListSource(_ListedSource):
    """Images that a text file lists, one path per line; empty lines and `#` lines are skipped.

    A listed file may have any suffix, but system files are passed over, as in a folder.

    Args:
        path (str | Path): The list.
        root (str | Path, optional): Folder to which the paths are relative. Defaults to the folder of
            the list.
        follow_links (bool): Whether links may lead out of that folder. Defaults to False.
    """

    kind = 'list'

    def names(self) -> list[str]:
        """Return the listed images without system files; see `_ListedSource.names`."""
        sorter = Sorter(any_suffix=True)
        found = sorter.photos(super().names())
        self.passed_over = sorter.passed_over
        return found

    def listed(self) -> Iterable[str]:
        """Return the lines of the list that are neither empty nor comments."""
        try:
            lines = read_lines(self.path)
        except ValueError as error:
            raise ValueError(f'{self.path} is not a list of images: {error}') from error
        return [line for line in lines if not line.startswith('#')]


class CocoSource(_ListedSource):
    """The images of a COCO json.

    Args:
        path (str | Path): The json file.
        root (str | Path, optional): Folder to which each `file_name` is relative. Defaults to the
            folder of the json.
        follow_links (bool): Whether links may lead out of that folder. Defaults to False.
    """

    kind = 'coco'

    def listed(self) -> Iterable[str]:
        """Return the `file_name` of each image."""
        try:
            names = [image['file_name'] for image in read_json(self.path)['images']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{self.path} is not a COCO json: it should contain a list "images", '
                             f'each with a "file_name" ({type(error).__name__}: {error}).'
                             ) from error
        for row, name in enumerate(names):
            problem = name_problem(name) if isinstance(name, str) else 'is not a string'
            if problem:
                raise ValueError(f'images[{row}] of {self.path}: the file_name {name!r} {problem}. '
                                 f'It should be relative to --root.')
        return names


def open_source(path: str | Path, root: str | Path | None = None,
                follow_links: bool = False) -> ImageSource:
    """Open an image source of any kind.

    Args:
        path (str | Path): A folder, a list of images, a COCO json, a zip or a tar archive.
        root (str | Path, optional): Folder of the images of a list or a COCO json. Defaults to the
            folder of that file.
        follow_links (bool): Whether links may lead out of the folder of the images. Defaults to False.

    Returns:
        ImageSource: The source.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the path is not an image source.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'there are no images at {path}: give {KINDS}.')
    if os.path.isdir(path):
        return FolderSource(path, follow_links)
    suffix = Path(path).suffix.lower()
    if suffix in ('.txt', '.lst'):
        return ListSource(path, root, follow_links)
    if suffix == '.json':
        return CocoSource(path, root, follow_links)
    if suffix == '.zip' or zipfile.is_zipfile(path):
        return ZipSource(path)
    if suffix in ('.tar', '.gz', '.tgz', '.xz', '.bz2') or tarfile.is_tarfile(path):
        return TarSource(path)
    raise ValueError(f'{path} is not an image source: give {KINDS}.')
