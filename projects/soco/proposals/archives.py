"""Image sources for zip and tar archives, which are read in place.

The positions of the members are indexed once. Nothing is extracted: the names of the members are keys,
never paths.
"""
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from .photo_files import Sorter
from .source_base import ImageSource, name_problem

_ZIP_HEADER = struct.Struct('<4s22xHH')


class _ArchiveSource(ImageSource):
    """Images in an archive.

    Args:
        path (str | Path): The archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.abspath(path)
        self.index: dict[str, tuple[int, ...]] | None = None
        self._file: int | None = None

    def build_index(self) -> dict[str, tuple[int, ...]]:
        """Build the index of the files in the archive.

        Returns:
            dict[str, tuple[int, ...]]: Name of each file to where and how it is stored.

        Raises:
            ValueError: If the file is another kind of file, or damaged.
        """
        raise NotImplementedError

    def _entries(self) -> dict[str, tuple[int, ...]]:
        if self.index is None:
            self.index = self.build_index()
            for name in self._photos():
                problem = name_problem(name)
                if problem:
                    raise ValueError(f'{self.path} contains an image whose name {name!r} {problem}: '
                                     f'create the archive again with relative names.')
        return self.index

    def _photos(self) -> list[str]:
        sorter = Sorter()
        found = sorter.photos(self.index or ())
        self.passed_over = sorter.passed_over
        return found

    def names(self) -> list[str]:
        self._entries()
        return sorted(self._photos())

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
            raise FileNotFoundError(f'{self.path} contains no image {name!r}') from error

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
        """Build the index: offset, packed size, size, CRC-32 and method of each file."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {item.filename.removeprefix('./'):
                        (item.header_offset, item.compress_size, item.file_size, item.CRC,
                         -1 if item.flag_bits & 1 else item.compress_type)
                        for item in archive.infolist() if not item.is_dir()}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f'{self.path} is not a zip archive, or it is damaged: '
                             f'{error}.') from error

    def read_bytes(self, name: str) -> bytes:
        """Return the content of one image file; check its size and its CRC-32."""
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
            raise OSError(f'{name} is encrypted, or uses a compression method other than deflate')
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
        """Build the index: offset and size of each file; links and other members are left out."""
        found: dict[str, tuple[int, ...]] = {}
        try:
            with tarfile.open(self.path, 'r:') as archive:
                for item in archive:
                    archive.members = []  # type: ignore[attr-defined]
                    if item.isreg() and not item.issparse():
                        found[item.name.removeprefix('./')] = (item.offset_data, item.size)
        except tarfile.TarError as error:
            raise ValueError(f'{self.path} is not an uncompressed tar archive, or it is damaged '
                             f'({error}): decompress a .tar.gz with gunzip first, because a compressed '
                             f'archive can only be read from front to back.') from error
        return found

    def read_bytes(self, name: str) -> bytes:
        """Return the content of one image file."""
        return self._read(*self._entry(name))
