"""Which files are photos, by name and by content, and an account of the files that are passed over.

This is the only place that says which suffixes and formats are photos. `images.py` decodes them.
"""
import importlib
import importlib.util
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from PIL import Image, features

# Formats of Pillow that are not photos. Some of them start other programs (EPS, WMF), others have no
# decoder of their own (the stubs BUFR, GRIB, HDF5, MPEG).
NO_PHOTOS = ('BLP', 'BUFR', 'CUR', 'DDS', 'EPS', 'FITS', 'FLI', 'FTEX', 'GBR', 'GRIB', 'HDF5', 'ICNS',
             'ICO', 'IPTC', 'MPEG', 'PDF', 'PSD', 'WMF', 'XBM', 'XPM')
CODECS = {'AVIF': 'avif', 'JPEG2000': 'jpg_2000', 'WEBP': 'webp'}  # optional when Pillow is built
MORE_SUFFIXES = {'.mpo': 'JPEG', '.sr': 'SUN'}  # what Pillow opens without registering the suffix
NO_PHOTO_SUFFIXES = ('.pfm', )  # high dynamic range, in a format whose other suffixes are photos
# Packages that teach Pillow a format: module, package, how to register it, suffixes
PLUGINS: tuple[tuple[str, str, str | None, tuple[str, ...]], ...] = (
    ('pillow_heif', 'pillow-heif', 'register_heif_opener',
     ('.heic', '.heics', '.heif', '.heifs', '.hif')),
    ('pillow_jxl', 'pillow-jxl-plugin', None, ('.jxl', )),
    ('pillow_avif', 'pillow-avif-plugin', None, ('.avif', '.avifs')),
)
RAW = ('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dcr', '.dng', '.erf', '.fff', '.iiq', '.kdc', '.mef',
       '.mos', '.mrw', '.nef', '.nrw', '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf',
       '.srw', '.x3f')
# Suffix or content of files that are not read, and what to do about it
HOW_TO_READ = {
    **{suffix: f'read if the package {package} is installed'
       for _, package, _, suffixes in PLUGINS for suffix in suffixes},
    **dict.fromkeys(RAW, 'raw files of a camera: convert them, for example with the package rawpy'),
    **dict.fromkeys(('.exr', '.hdr', '.pfm', '.pic'), 'high dynamic range: convert it to 8 bits'),
    **dict.fromkeys(('.kra', '.psb', '.psd', '.xcf'), 'layers: export the picture'),
    **dict.fromkeys(('.7z', '.bz2', '.gz', '.rar', '.tar', '.tgz', '.xz', '.zip'),
                    'an archive: unpack it, or give a .zip or .tar itself as IMAGES'),
}
# What macOS, Windows and network drives leave beside photos; letter case does not matter
SYSTEM_FILES = ('.DS_Store', '.picasa.ini', 'desktop.ini', 'ehthumbs.db', 'ehthumbs_vista.db', 'Icon\r',
                'Picasa.ini', 'Thumbs.db', 'ZbThumbnail.info')
SYNOLOGY_FILES = ('SYNOFILE_THUMB', 'SYNOINDEX_MEDIA_INFO', 'SYNOPHOTO:', 'SYNOPHOTO_', 'SYNOVIDEO_')
SYSTEM_FOLDERS = ('#recycle', '#snapshot', '$RECYCLE.BIN', '.@__thumb', '.AppleDouble', '.thumbnails',
                  '.Trashes', '@eaDir', '@Recently-Snapshot', '@Recycle', '@sharebin', '@sharesnap',
                  '@tmp', '__MACOSX', 'lost+found', 'Network Trash Folder', 'RECYCLED', 'RECYCLER',
                  'System Volume Information', 'Temporary Items')
_FILES = {name.lower(): name.strip() for name in SYSTEM_FILES}
_FOLDERS = {name.lower(): f'{name}/' for name in SYSTEM_FOLDERS}
_SYNOLOGY = tuple(name.lower() for name in SYNOLOGY_FILES)
FEW = 12


@cache
def register_plugins() -> dict[str, str]:
    """Register the installed packages that teach Pillow a format.

    Returns:
        dict[str, str]: Suffixes of the packages that are installed but fail, and the reason.
    """
    failed = {}
    for module, package, function, suffixes in PLUGINS:
        if importlib.util.find_spec(module) is None:
            continue
        try:
            plugin = importlib.import_module(module)
            if function:
                getattr(plugin, function)()
        except Exception as error:  # whatever a package does: photos of other formats are still read
            failed |= dict.fromkeys(suffixes, f'the package {package} is installed but fails: {error}')
    return failed


def how_to_read() -> dict[str, str]:
    """Return what to do about files that are not read, by suffix."""
    return HOW_TO_READ | register_plugins()


@cache
def photo_suffixes() -> dict[str, str]:
    """Return the suffixes of photos in lower case, each with Pillow's name of the format."""
    register_plugins()
    Image.init()
    found = {**Image.registered_extensions(), **MORE_SUFFIXES}
    missing = {form for form, codec in CODECS.items() if not features.check(codec)}
    missing -= {found[suffix] for module, _, _, suffixes in PLUGINS for suffix in suffixes
                if suffix in found and importlib.util.find_spec(module)}
    return {suffix: form for suffix, form in sorted(found.items())
            if form in Image.OPEN and form not in NO_PHOTOS and form not in missing
            and suffix not in NO_PHOTO_SUFFIXES}


@cache
def photo_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats of photos, in the order in which they are tried.

    A file is read by what it contains, whatever its suffix. TGA has no signature, so it comes last.
    """
    order = ('JPEG', 'PNG')
    return *order, *sorted(set(photo_suffixes().values()) - {*order, 'TGA'}), 'TGA'


def system_file(base: str) -> str | None:
    """Return the kind of a system file or hidden file by its base name; None for any other file."""
    if base.startswith('._'):
        return '._*'
    lower = base.lower()
    if lower in _FILES:
        return _FILES[lower]
    if lower.startswith(_SYNOLOGY):
        return 'SYNO*'
    return 'hidden files' if base.startswith('.') else None


def system_folder(base: str) -> str | None:
    """Return the kind of a system folder or hidden folder by its base name; None for any other."""
    lower = base.lower()
    if lower in _FOLDERS:
        return _FOLDERS[lower]
    if lower.startswith('.trash-'):
        return '.Trash-*/'
    return 'hidden folders' if base.startswith('.') else None


@dataclass
class PassedOver:
    """Account of the files and folders of a source that are not taken as photos.

    Args:
        suffixes (Counter): Number of files by suffix, for files that are of another kind.
        system (Counter): Number of files or folders by kind, for what systems leave beside photos.
            A folder counts once; what it contains is not counted.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.suffixes or self.system)

    def metadata(self) -> dict:
        """Return the account as JSON values, at most 50 kinds of each."""
        return {key: _at_most(counter, 50) for key, counter in
                (('suffixes', self.suffixes), ('system', self.system)) if counter}

    def describe(self) -> str:
        """Return the account in one line; empty if nothing was passed over."""
        parts = []
        if self.suffixes:
            kinds = _at_most(self.suffixes, FEW)
            hints: dict[str, list[str]] = {}
            for suffix, count in kinds.items():
                told_of = hints.setdefault(how_to_read().get(suffix, ''), [])
                told_of.append(f'{count} {suffix or "without suffix"}')
            told = [f'{", ".join(counts)}{f" ({hint})" if hint else ""}'
                    for hint, counts in hints.items()]
            parts.append(f'{_files(self.suffixes.total())} of other kinds: {", ".join(told)}')
        if self.system:
            told = [f'{count} {kind}' for kind, count in _at_most(self.system, FEW).items()]
            parts.append(f'{self.system.total()} hidden, system or unreadable files and folders: '
                         f'{", ".join(told)}')
        return '; '.join(parts)


def _files(count: int) -> str:
    return '1 file' if count == 1 else f'{count} files'


def _at_most(counter: Counter[str], most: int) -> dict[str, int]:
    """Return the largest counts, those of `HOW_TO_READ` first, and the sum of the others."""
    ranked = sorted(counter.items(), key=lambda item: (item[0] not in HOW_TO_READ, -item[1], item[0]))
    kept = dict(ranked[:most])
    if ranked[most:]:
        kept['others'] = sum(count for _, count in ranked[most:])
    return kept


class Sorter:
    """Sort files into photos and others, with an account of the others.

    The suffix of a file is looked up once for each kind, so that sorting costs little more than
    listing.

    Args:
        any_suffix (bool): Whether files of any suffix are taken, as in a list that a user wrote; hidden
            files, too. System files are passed over in any case. Defaults to False.
    """

    def __init__(self, any_suffix: bool = False) -> None:
        self.any_suffix = any_suffix
        self.passed_over = PassedOver()
        self._known = photo_suffixes()

    def is_photo(self, base: str) -> bool:
        """Return whether a file is a photo by its base name; count it if it is not.

        Args:
            base (str): The name without folders.

        Returns:
            bool: Whether it is a photo.
        """
        dot = base.rfind('.')
        suffix = base[dot:].lower() if dot > 0 else ''
        if suffix in self._known and base[0] not in '.sS':  # nearly all files; the rest are looked at
            return True
        kind = system_file(base)
        if kind == 'hidden files' and self.any_suffix:
            kind = None
        if kind:
            self.passed_over.system[kind] += 1
            return False
        if self.any_suffix or suffix in self._known:
            return True
        # a part of the name, such as "1. June 2019", is no suffix
        plain = len(suffix) <= 12 and suffix[1:].isalnum() and suffix.isprintable()
        self.passed_over.suffixes[suffix if plain else ''] += 1
        return False

    def is_folder_of_photos(self, base: str) -> bool:
        """Return whether a folder can contain photos, by its base name; count it if it cannot."""
        kind = system_folder(base)
        if kind:
            self.passed_over.system[kind] += 1
        return kind is None

    def unreadable(self, _: OSError) -> None:
        """Count a folder that cannot be listed."""
        self.passed_over.system['unreadable folders'] += 1

    def photos(self, names: Iterable[str]) -> list[str]:
        """Return the names of photos among relative paths with slashes.

        A system folder counts once, however many of the names are in it.
        """
        found, folders = [], dict[str, str | None]()
        for name in names:
            folder, _, base = name.rpartition('/')
            if folder not in folders:
                folders[folder] = self._first_system_folder(folder)
            if folders[folder] is None and self.is_photo(base):
                found.append(name)
        for path in {path for path in folders.values() if path is not None}:
            self.passed_over.system[system_folder(path.rpartition('/')[2]) or ''] += 1
        return found

    def _first_system_folder(self, folder: str) -> str | None:
        parts = folder.split('/')
        for depth, part in enumerate(parts):
            kind = system_folder(part) if part not in ('', '.', '..') else None
            if kind and not (self.any_suffix and kind == 'hidden folders'):
                return '/'.join(parts[:depth + 1])
        return None


# The first bytes of files that are not photos, and what such a file is
_SIGNATURES = (
    (b'\xff\x0a', '.jxl'), (b'\0\0\0\x0cJXL ', '.jxl'), (b'FUJIFILMCCD-RAW', '.raf'),
    (b'IIU\0', '.rw2'), (b'IIRO', '.orf'), (b'IIRS', '.orf'), (b'FOVb', '.x3f'),
    (b'#?RADIANCE', '.hdr'), (b'#?RGBE', '.hdr'), (b'v/1\x01', '.exr'),
    (b'PF\n', '.pfm'), (b'Pf\n', '.pfm'), (b'8BPS', '.psd'), (b'PK\3\4', '.zip'),
    (b'%PDF', '.pdf'), (b'%!PS', '.ps'), (b'\0\5\x16\7', '._*'))
_BRANDS = {b'crx ': '.cr3', b'avif': '.avif', b'avis': '.avif', **dict.fromkeys(
    (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'), '.heic')}


def describe_content(data: bytes) -> str:
    """Say what a file is that is not read as a photo, by its first bytes.

    Args:
        data (bytes): The file, or its beginning.

    Returns:
        str: A reason in a few words; it names the package that reads the file, if there is one.
    """
    suffix = next((suffix for start, suffix in _SIGNATURES if data.startswith(start)), None)
    if data[4:8] == b'ftyp':
        found = {_BRANDS.get(data[8:12])} | {_BRANDS.get(data[at:at + 4]) for at in range(16, 64, 4)}
        suffix = next((suffix for suffix in ('.cr3', '.avif', '.heic') if suffix in found), '.mp4')
    if suffix is None:
        return 'not an image'
    if suffix in how_to_read():
        return (f'not an image that is read: its content is that of a {suffix} file '
                f'({how_to_read()[suffix]})')
    return f'not an image: its content is that of a {suffix} file'
