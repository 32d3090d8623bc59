"""Check that a store and images belong together, with a hint for the user if they do not."""
import os
from pathlib import Path

import numpy as np

from .photo_files import how_to_read
from .source_base import ImageSource, NameRefused, name_problem
from .sources import FolderSource
from .store import ProposalStore

TRIED = 16


def where_instead(source: ImageSource, name: str, what: str) -> str:
    """Look nearby for an image that a source does not contain under its name.

    Args:
        source (ImageSource): The source.
        name (str): Name of the image.
        what (str): The user's name of the source, such as `data_root`.

    Returns:
        str: Where the image is and what to do, one or two sentences; empty if it was not found.
    """
    problem = name_problem(name)
    if problem:
        return f'The name {name!r} {problem}: names should be relative paths within the folder.'
    if name in source:
        hint = how_to_read().get(Path(name).suffix.lower(), '')
        return f'{name} is there, but its name is not that of a photo that is read' + (
            f' ({hint}).' if hint else '.')
    if isinstance(source, FolderSource):
        try:
            source.locate(name)
        except NameRefused as error:
            return f'{error}.'
    if type(source) is FolderSource:
        with os.scandir(source.root) as entries:
            below = sorted(entry.path for entry in entries if entry.is_dir())
        above = os.path.dirname(source.root)
        for folder in (above, os.path.dirname(above), *below):
            if os.path.isfile(os.path.join(folder, name)):
                return f'{name} is in {folder}: give that as {what}.'
    else:
        longer = next((other for other in source.names() if other.endswith(f'/{name}')), None)
        if longer:
            return f'There is {longer} instead.'
    parts = name.split('/')
    for start in range(1, len(parts)):
        tail = '/'.join(parts[start:])
        if tail in source:
            front = '/'.join(parts[:start])
            return (f'There is {tail} instead: give as {what} a place that contains the images '
                    f'under {front}/.')
    return ''


def check_has_boxes(store: ProposalStore, source: ImageSource) -> None:
    """Check that a store has a box for at least one photo.

    Args:
        store (ProposalStore): The store.
        source (ImageSource): The images that it was made from.

    Raises:
        ValueError: If it has none.
    """
    if not store.box_counts().any():
        raise ValueError(
            f'{store.path} contains no box for any of the {len(store)} photos of {source.path}, so '
            'there is nothing to compare. Give photos that show objects, or make it again so that '
            f'small boxes are found and kept: python tools/generate_proposals.py {source.path} '
            f'{store.path} --overwrite --setting fine --keep all')


def check_store_fits(store: ProposalStore, source: ImageSource) -> None:
    """Check that a few of a store's images, evenly spread, exist in an image source.

    Only the existence of the files is checked, so this is fast even for a million images.

    Args:
        store (ProposalStore): The store.
        source (ImageSource): The images, `data_root` of the data set.

    Raises:
        ValueError: If the store lists no image, or an image that was looked up is missing.
    """
    if len(store) == 0:
        raise ValueError(f'{store.path} lists no image. Make it again from a folder of photos: '
                         f'python tools/generate_proposals.py IMAGES {store.path}')
    rows = np.unique(np.linspace(0, len(store) - 1, num=TRIED).astype(int))
    names = [store.name(int(row)) for row in rows]
    missing = [name for name in names if name not in source]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(names)} photos looked up from {store.path} are not in '
            f'{source.path} (the first: {missing[0]}). '
            f'{where_instead(source, missing[0], "data_root") or "The store is of other images."} '
            f'Set data_root to the images that the proposals were made from, or make them again: '
            f'python tools/generate_proposals.py {source.path} OUT.arrow')
