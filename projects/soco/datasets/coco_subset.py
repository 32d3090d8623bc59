"""Random subsets of COCO-style annotation files, drawn by image, such as mini-COCO."""
import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import write_whole
from ..proposals.formats import read_json

_TABLES = ('images', 'annotations', 'categories')


@dataclass(frozen=True)
class SubsetSummary:
    """Counts of a subset and of its source."""

    path: Path
    images: int
    source_images: int
    annotations: int
    source_annotations: int
    categories: int
    empty_categories: tuple[str, ...]


def choose_images(ids: Collection[int | str], percent: float, seed: int = 0) -> set[int | str]:
    """Draw a share of the images.

    The images are sorted by a hash of their id and the seed, and the first ones are chosen. The order
    of `ids` therefore does not matter, and of two shares with the same seed the larger contains the
    smaller.

    Args:
        ids (Collection[int | str]): Image ids without duplicates.
        percent (float): Share in percent, within (0, 100].
        seed (int): Another seed gives another choice. Defaults to 0.

    Returns:
        set[int | str]: The chosen ids: the nearest whole number, at least one.

    Raises:
        ValueError: If `percent` is out of range, or `ids` is empty.
    """
    _check_percent(percent)
    if not ids:
        raise ValueError('there are no images to draw from.')

    # A hash, because the streams of random generators may change between library versions.
    def place(image_id: int | str) -> bytes:
        return hashlib.sha256(f'{seed}:{json.dumps(image_id)}'.encode()).digest()

    return set(sorted(ids, key=place)[:max(1, round(len(ids) * percent / 100))])


def _check_percent(percent: float) -> None:
    if not 0 < percent <= 100:  # also rejects nan
        raise ValueError(f'percent must be above 0 and at most 100, not {percent}.')


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _check_table(content: Any, table: str, source: str | Path) -> list[dict]:
    """Check the types of one table and return its rows."""
    if not isinstance(content, dict) or table not in content:
        raise ValueError(f'{source} has no key {table!r}. It should be a COCO instances file, '
                         f'such as instances_train2017.json, with {", ".join(_TABLES)}.')
    rows = content[table]
    if not isinstance(rows, list):
        raise ValueError(f'{source}: {table} should be a list, but is a {type(rows).__name__}.')
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f'{source}: {table}[{number}] should be an object, but is a '
                             f'{type(row).__name__}.')
    return rows


def _unique_ids(rows: Iterable[dict], table: str, source: str | Path) -> set[int | str]:
    ids: set[int | str] = set()
    for number, row in enumerate(rows):
        value = row.get('id')
        if not _is_id(value):
            raise ValueError(f'{source}: {table}[{number}] has no id, or an id that is not an '
                             f'integer or a string: {value!r}.')
        if value in ids:
            raise ValueError(f'{source}: {table}[{number}] has the id {value!r}, which an earlier '
                             'one has too. Ids must be unique.')
        ids.add(value)
    return ids


def _check_references(annotations: Iterable[dict], key: str, known: set[int | str], table: str,
                      source: str | Path) -> None:
    for number, row in enumerate(annotations):
        if key not in row:
            raise ValueError(f'{source}: annotations[{number}] has no key {key!r}.')
        if not _is_id(row[key]) or row[key] not in known:
            raise ValueError(f'{source}: annotations[{number}] has {key} {row[key]!r}, which no '
                             f'entry of {table} has as its id. Create or download the file again.')


def check_coco(content: Any, source: str | Path) -> tuple[list[dict], list[dict], list[dict]]:
    """Check the ids of a COCO instances file and return its tables.

    Args:
        content (Any): Content of the JSON file.
        source (str | Path): Path of the file, for error messages.

    Returns:
        tuple: Rows of `images`, `annotations` and `categories`. The ids of images and categories are
        unique, and annotations refer to existing ids.

    Raises:
        ValueError: If `content` is not a COCO instances file; the message contains the key and the row.
    """
    images, annotations, categories = (_check_table(content, t, source) for t in _TABLES)
    _check_references(annotations, 'image_id', _unique_ids(images, 'images', source), 'images', source)
    _check_references(annotations, 'category_id', _unique_ids(categories, 'categories', source),
                      'categories', source)
    return images, annotations, categories


def subset_coco(content: Any, percent: float, seed: int, source: str | Path) -> dict[str, Any]:
    """Return a share of a COCO data set: the chosen images and their annotations.

    Everything else is kept, including categories without instances, so that class lists do not
    change. Rows keep their order. `info['subset']` records how the subset was made.

    Args:
        content (Any): Content of the JSON file; it is not changed.
        percent (float): Share of the images; see `choose_images`.
        seed (int): See `choose_images`.
        source (str | Path): Path of the file, for error messages; its name is written to `info`.

    Returns:
        dict[str, Any]: The content of the subset's JSON file.

    Raises:
        ValueError: If `content` is not a COCO instances file (the message contains the key and the
            row), or the share is out of range.
    """
    images, _, _ = check_coco(content, source)
    info = content.get('info', {})
    if not isinstance(info, dict):
        raise ValueError(f'{source}: info should be an object, but is a {type(info).__name__}.')
    if not images:
        raise ValueError(f'{source}: images is empty, so there is nothing to choose from.')
    chosen = choose_images([row['id'] for row in images], percent, seed)
    made_from = dict(source=Path(source).name, percent=percent, seed=seed,
                     made_by=f'mmsoco {__version__}')
    return {**with_images(content, chosen), 'info': {**info, 'subset': made_from}}


def with_images(content: dict[str, Any], chosen: Collection[int | str]) -> dict[str, Any]:
    """Return a COCO data set with only the images of the chosen ids, and their annotations."""
    return {**content, 'images': [row for row in content['images'] if row['id'] in chosen],
            'annotations': [row for row in content['annotations'] if row['image_id'] in chosen]}


def default_output(source: str | Path, percent: float) -> Path:
    """Return the path of a subset next to its source, such as `..._train2017_5percent.json`."""
    source = Path(source)
    return source.with_name(f'{source.stem}_{str(float(percent)).removesuffix(".0")}percent.json')


def write_subset(source: str | Path, out: str | Path, percent: float, seed: int = 0,
                 overwrite: bool = False, report: Callable[[str], Any] = lambda text: None
                 ) -> SubsetSummary:
    """Write a share of a COCO file to a new file, whole or not at all.

    Args:
        source (str | Path): COCO instances JSON file.
        out (str | Path): JSON file to write; its folder is created if it does not exist.
        percent (float): Share of the images; see `choose_images`.
        seed (int): See `choose_images`. Defaults to 0.
        overwrite (bool): Whether to replace an existing `out`. Defaults to False.
        report (Callable[[str], Any]): Called with the name of each long stage before it starts.
            Defaults to a function that does nothing.

    Returns:
        SubsetSummary: Counts of images, annotations and categories.

    Raises:
        FileNotFoundError: If `source` does not exist.
        FileExistsError: If `out` exists and `overwrite` is False.
        ValueError: If `source` is not a COCO instances file, `out` is `source` or a folder, or the
            share is out of range.
    """
    source, out = Path(source), Path(out)
    _check_percent(percent)
    if out.is_dir():
        raise ValueError(f'{out} is a folder; give the path of a JSON file.')
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f'{out} is the source itself; give another path for the subset.')
    if out.exists() and not overwrite:
        raise FileExistsError(f'{out} already exists. Add --overwrite to replace it, or give '
                              'another path.')
    report(f'reading {source}')
    content = read_json(source)
    report('choosing images')
    subset = subset_coco(content, percent, seed, source)
    report(f'writing {out}')
    # json.dumps, because json.dump encodes row by row in Python code
    write_whole(out, json.dumps(subset).encode())
    used = {row['category_id'] for row in subset['annotations']}
    return SubsetSummary(
        out, len(subset['images']), len(content['images']), len(subset['annotations']),
        len(content['annotations']), len(subset['categories']),
        tuple(str(row.get('name', row['id'])) for row in subset['categories']
              if row['id'] not in used))
