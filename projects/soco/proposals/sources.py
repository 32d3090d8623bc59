"""Where images come from: one reader for the generator and for training.

A source lists names and hands out the bytes of a name. It may be copied to any number of worker
processes and threads. Archives are read in place: an index of the members' positions is made once,
nothing is ever extracted.
"""
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

EXTENSIONS = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
KINDS = ('a folder, a list of images (.txt), a COCO json, a zip archive or an uncompressed tar '
         'archive')
_ZIP_HEADER = struct.Struct('<4s22xHH')


def is_image_name(name: str) -> bool:
    """Whether a file name says that it is an image; hidden files are none."""
    base = name.rpartition('/')[2]
    return base.lower().endswith(EXTENSIONS) and not base.startswith('.')


class ImageSource:
    """What every source can do."""

    kind: str
    path: str

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


class FolderSource(ImageSource):
    """Images in a folder and its subfolders; links to folders are followed, each folder once.

    Args:
        root (str | Path): The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    kind = 'folder'

    def __init__(self, root: str | Path) -> None:
        self.path = self.root = os.path.abspath(root)
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f'there is no folder of images at {root}.')

    def names(self) -> list[str]:
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
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BinaryIO:
        if os.path.isabs(name) or '..' in name.split('/'):
            raise PermissionError(f'{name} points out of the folder {self.root}')
        return open(os.path.join(self.root, name), 'rb')

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.root, name))


class _ListedSource(FolderSource):
    """Images of a folder that a file lists."""

    def __init__(self, path: str | Path, root: str | Path | None) -> None:
        super().__init__(root or os.path.dirname(os.path.abspath(path)))
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
    """

    kind = 'coco'

    def listed(self) -> Iterable[str]:
        try:
            with open(self.path, encoding='utf-8') as file:
                return [image['file_name'] for image in json.load(file)['images']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{self.path} is not a COCO json: it should hold a list "images", '
                             f'each with a "file_name" ({type(error).__name__}: {error}).'
                             ) from error


class _ArchiveSource(ImageSource):
    """Images in an archive; ``index`` maps a name to where and how it is stored."""

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.abspath(path)
        self.index: dict[str, tuple[int, ...]] | None = None
        self._file: int | None = None

    def build_index(self) -> dict[str, tuple[int, ...]]:
        """Find the images of the archive."""
        raise NotImplementedError

    def _entries(self) -> dict[str, tuple[int, ...]]:
        if self.index is None:
            self.index = self.build_index()
        return self.index

    def names(self) -> list[str]:
        return sorted(self._entries())

    def __contains__(self, name: str) -> bool:
        return name in self._entries()

    def select(self, names: Iterable[str]) -> ImageSource:
        part = type(self)(self.path)
        part.index = {name: self._entries()[name] for name in names}
        return part

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _file=None)

    def _read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._file, size, offset)
        if len(data) < size:
            raise OSError(f'{self.path} ends in the middle of an image')
        return data

    def _entry(self, name: str) -> tuple[int, ...]:
        try:
            return self._entries()[name]
        except KeyError as error:
            raise FileNotFoundError(f'{self.path} holds no image {name!r}') from error

    def __del__(self) -> None:
        if getattr(self, '_file', None) is not None:
            os.close(self._file)


class ZipSource(_ArchiveSource):
    """Images in a zip archive, stored or deflated.

    Args:
        path (str | Path): The archive.
    """

    kind = 'zip'

    def build_index(self) -> dict[str, tuple[int, ...]]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {item.filename.removeprefix('./'):
                        (item.header_offset, item.compress_size, item.file_size, item.CRC,
                         -1 if item.flag_bits & 1 else item.compress_type)
                        for item in archive.infolist() if is_image_name(item.filename)}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f'{self.path} is not a zip archive, or a damaged one: '
                             f'{error}.') from error

    def read_bytes(self, name: str) -> bytes:
        offset, packed, size, checksum, method = self._entry(name)
        magic, name_length, extra_length = _ZIP_HEADER.unpack(self._read(offset, 30))
        if magic != b'PK\3\4':
            raise OSError(f'the entry of {name} in {self.path} is damaged')
        data = self._read(offset + 30 + name_length + extra_length, packed)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-15).decompress(data, size + 1)
            except zlib.error as error:
                raise OSError(f'the entry of {name} in {self.path} is damaged') from error
        elif method != zipfile.ZIP_STORED:
            raise OSError(f'{name} is encrypted, or compressed by another method than deflate')
        if len(data) != size or zlib.crc32(data) != checksum:
            raise OSError(f'the entry of {name} in {self.path} is damaged')
        return data


class TarSource(_ArchiveSource):
    """Images in an uncompressed tar archive.

    Args:
        path (str | Path): The archive.
    """

    kind = 'tar'

    def build_index(self) -> dict[str, tuple[int, ...]]:
        found = {}
        try:
            with tarfile.open(self.path, 'r:') as archive:
                for item in archive:
                    archive.members = []
                    if item.isreg() and not item.issparse() and is_image_name(item.name):
                        found[item.name.removeprefix('./')] = (item.offset_data, item.size)
        except tarfile.TarError as error:
            raise ValueError(f'{self.path} is not an uncompressed tar archive, or a damaged one '
                             f'({error}): unpack a .tar.gz with gunzip first, since a compressed '
                             f'one can only be read from front to back.') from error
        return found

    def read_bytes(self, name: str) -> bytes:
        return self._read(*self._entry(name))


def open_source(path: str | Path, root: str | Path | None = None) -> ImageSource:
    """Open images wherever they are.

    Args:
        path (str | Path): A folder, a list of images, a COCO json, a zip or a tar archive.
        root (str | Path, optional): Where the images of a list or a COCO json are, by default in
            its folder.

    Returns:
        ImageSource: The source.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If what is there is no image source.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'there are no images at {path}: give {KINDS}.')
    if os.path.isdir(path):
        return FolderSource(path)
    suffix = Path(path).suffix.lower()
    if suffix in ('.txt', '.lst'):
        return ListSource(path, root)
    if suffix == '.json':
        return CocoSource(path, root)
    if suffix == '.zip' or zipfile.is_zipfile(path):
        return ZipSource(path)
    if suffix in ('.tar', '.gz', '.tgz', '.xz', '.bz2') or tarfile.is_tarfile(path):
        return TarSource(path)
    raise ValueError(f'{path} is no image source: give {KINDS}.')
