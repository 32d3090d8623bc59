"""Where images come from: one reader for the generator and for training.

A source lists names and hands out the bytes of a name. It may be copied to any number of worker
processes and threads. No name leads out of the folder of the images.
"""
import errno
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from .archives import TarSource, ZipSource
from .source_base import ImageSource, NameRefused, is_image_name, name_problem

KINDS = ('a folder, a list of images (.txt), a COCO json, a zip archive or an uncompressed tar '
         'archive')


class FolderSource(ImageSource):
    """Images in a folder and its subfolders; links within it are followed, each folder once.

    Args:
        root (str | Path): The folder; it may be a link itself.
        follow_links (bool): Whether links may lead out of the folder. Who can write there, or has
            made the archive that was unpacked there, then chooses what is read.

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
        """The images: relative paths with slashes, sorted, each once.

        Raises:
            ValueError: If a folder is a link that leads out and may not.
        """
        found, visited = [], set()
        for folder, folders, files in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith('.'))
            try:
                real = self._resolve(folder)
            except NameRefused as error:
                raise ValueError(str(error)) from error
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            prefix = Path(os.path.relpath(folder, self.root)).as_posix()
            prefix = '' if prefix == '.' else prefix + '/'
            found += [prefix + name for name in files if is_image_name(name)]
        return sorted(found)

    def _resolve(self, path: str) -> str:
        real = os.path.realpath(path)
        if not self.follow_links and not os.path.join(real, '').startswith(self._real):
            raise NameRefused(f'{path} is reached by a link out of {self.root}, to {real}: if that is '
                              f'meant, say so with --follow-links (follow_links=True of a data set)')
        return real

    def locate(self, name: str) -> str:
        """Where an image is.

        Args:
            name (str): Its name.

        Returns:
            str: Its path, links resolved.

        Raises:
            NameRefused: If the name leads out of the folder.
        """
        problem = name_problem(name)
        if problem:
            raise NameRefused(f'the name {name!r} {problem}: it may point out of the folder '
                              f'{self.root}')
        return self._resolve(os.path.join(self.root, name))

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BinaryIO:
        path = self.locate(name)
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # to open a pipe would wait for ever
            raise OSError(errno.EINVAL, 'a folder' if stat.S_ISDIR(mode) else 'no ordinary file', path)
        return open(path, 'rb')

    def __contains__(self, name: str) -> bool:
        try:
            return os.path.isfile(self.locate(name))
        except NameRefused:
            return False


class _ListedSource(FolderSource):
    """Images of a folder that a file lists."""

    def __init__(self, path: str | Path, root: str | Path | None = None,
                 follow_links: bool = False) -> None:
        super().__init__(root or os.path.dirname(os.path.abspath(path)), follow_links)
        self.path = os.path.abspath(path)

    def listed(self) -> Iterable[str]:
        """Names as the file gives them."""
        raise NotImplementedError

    def names(self) -> list[str]:
        found = set()
        for name in self.listed():
            if os.path.isabs(name):
                name = os.path.relpath(name, self.root)
            name = Path(os.path.normpath(name)).as_posix()
            if name.startswith('../') or name in ('.', '..'):
                raise ValueError(f'{self.path} lists {name}, which lies outside of {self.root}: '
                                 f'give a folder that holds all images with --root.')
            found.add(name)
        if found and not any(os.path.exists(os.path.join(self.root, name)) for name in found):
            raise FileNotFoundError(f'none of the {len(found)} images that {self.path} lists is '
                                    f'in {self.root} (the first: {min(found)}): say with --root '
                                    f'where they are.')
        return sorted(found)


class ListSource(_ListedSource):
    """Images that a text file lists, one path a line; empty lines and ``#`` lines are skipped.

    Args:
        path (str | Path): The list.
        root (str | Path, optional): Folder that the paths start from, by default the list's.
        follow_links (bool): Whether links may lead out of that folder.
    """

    kind = 'list'

    def listed(self) -> Iterable[str]:
        with open(self.path, encoding='utf-8') as file:
            try:
                lines = [line.strip() for line in file]
            except UnicodeDecodeError as error:
                raise ValueError(f'{self.path} is not a list of images: {error}.') from error
        return [line for line in lines if line and not line.startswith('#')]


class CocoSource(_ListedSource):
    """The images of a COCO json.

    Args:
        path (str | Path): The json.
        root (str | Path, optional): Folder that ``file_name`` starts from, by default the json's.
        follow_links (bool): Whether links may lead out of that folder.
    """

    kind = 'coco'

    def listed(self) -> Iterable[str]:
        try:
            with open(self.path, encoding='utf-8') as file:
                names = [image['file_name'] for image in json.load(file)['images']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{self.path} is not a COCO json: it should hold a list "images", '
                             f'each with a "file_name" ({type(error).__name__}: {error}).'
                             ) from error
        for row, name in enumerate(names):
            problem = name_problem(name) if isinstance(name, str) else 'is no text'
            if problem:
                raise ValueError(f'images[{row}] of {self.path}: the file_name {name!r} {problem}. '
                                 f'It should be relative to --root.')
        return names


def open_source(path: str | Path, root: str | Path | None = None,
                follow_links: bool = False) -> ImageSource:
    """Open images wherever they are.

    Args:
        path (str | Path): A folder, a list of images, a COCO json, a zip or a tar archive.
        root (str | Path, optional): Where the images of a list or a COCO json are, by default in
            its folder.
        follow_links (bool): Whether links may lead out of the folder of the images.

    Returns:
        ImageSource: The source.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If what is there is no image source.
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
    raise ValueError(f'{path} is no image source: give {KINDS}.')
