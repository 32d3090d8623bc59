"""A share of a COCO-style annotation file, drawn by image, such as mini-COCO."""
import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..proposals.formats import read_json, write_json

_TABLES = ('images', 'annotations', 'categories')


@dataclass(frozen=True)
class SubsetSummary:
    """What a subset holds, beside what its source holds."""

    path: Path
    images: int
    source_images: int
    annotations: int
    source_annotations: int
    categories: int
    empty_categories: tuple[str, ...]


def choose_images(ids: Collection[int | str], percent: float, seed: int = 0) -> set[int | str]:
    """Draw a share of the images.

    An image's place in the queue depends on its id and the seed only, and the front of the queue
    is taken. So the order of the ids does not matter, and of two shares with one seed the smaller
    lies within the larger.

    Args:
        ids (Collection[int | str]): Image ids, each once.
        percent (float): Share in percent, within (0, 100].
        seed (int): Another seed gives another queue. Defaults to 0.

    Returns:
        set[int | str]: The nearest whole number of ids, at least one.

    Raises:
        ValueError: If `percent` is out of range, or `ids` is empty.
    """
    _check_percent(percent)
    if not ids:
        raise ValueError('there are no images to draw from.')

    # A hash, as the streams of random generators may change with their library's version.
    def place(image_id: int | str) -> bytes:
        return hashlib.sha256(f'{seed}:{json.dumps(image_id)}'.encode()).digest()

    return set(sorted(ids, key=place)[:max(1, round(len(ids) * percent / 100))])


def _check_percent(percent: float) -> None:
    if not 0 < percent <= 100:  # nan too is refused
        raise ValueError(f'percent must be above 0 and at most 100, not {percent}.')


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _check_table(content: Any, table: str, source: str | Path) -> list[dict]:
    """Return the rows of one table after a look at their form."""
    if not isinstance(content, dict) or table not in content:
        raise ValueError(f'{source} has no key {table!r}. It should be a COCO file of instances, '
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
            raise ValueError(f'{source}: {table}[{number}] has no id, or none that is a whole '
                             f'number or a text: {value!r}.')
        if value in ids:
            raise ValueError(f'{source}: {table}[{number}] has the id {value!r}, which an earlier '
                             'one has too. Every id must be there once.')
        ids.add(value)
    return ids


def _check_references(annotations: Iterable[dict], key: str, known: set[int | str], table: str,
                      source: str | Path) -> None:
    for number, row in enumerate(annotations):
        if key not in row:
            raise ValueError(f'{source}: annotations[{number}] has no key {key!r}.')
        if not _is_id(row[key]) or row[key] not in known:
            raise ValueError(f'{source}: annotations[{number}] has {key} {row[key]!r}, which no '
                             f'entry of {table} has as its id. Make or download the file anew.')


def check_coco(content: Any, source: str | Path) -> tuple[list[dict], list[dict], list[dict]]:
    """Return the tables of a COCO file of instances after a look at their ids.

    Args:
        content (Any): What the json holds.
        source (str | Path): Where it is from: named in messages.

    Returns:
        tuple: Rows of `images`, `annotations` and `categories`. Ids of images and categories are
        there once each, and annotations name such.

    Raises:
        ValueError: If `content` is no such file; key and row are named.
    """
    images, annotations, categories = (_check_table(content, t, source) for t in _TABLES)
    _check_references(annotations, 'image_id', _unique_ids(images, 'images', source), 'images', source)
    _check_references(annotations, 'category_id', _unique_ids(categories, 'categories', source),
                      'categories', source)
    return images, annotations, categories


def subset_coco(content: Any, percent: float, seed: int, source: str | Path) -> dict[str, Any]:
    """Return a share of a COCO data set: the chosen images and the annotations of these.

    All else stays, also categories without any instance, so that class lists do not change. Rows
    keep their order. `info['subset']` says what the subset was made from.

    Args:
        content (Any): What the json holds; it is not changed.
        percent (float): Share of the images; see `choose_images`.
        seed (int): See `choose_images`.
        source (str | Path): Where `content` is from: named in messages, its last part in `info`.

    Returns:
        dict[str, Any]: The content of the subset's json.

    Raises:
        ValueError: If `content` is no COCO file of instances, with key and row, or the share is
            out of range.
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
    """Return a COCO data set with some of its images, by their ids, and their annotations."""
    return {**content, 'images': [row for row in content['images'] if row['id'] in chosen],
            'annotations': [row for row in content['annotations'] if row['image_id'] in chosen]}


def default_output(source: str | Path, percent: float) -> Path:
    """Return the path of a subset beside its source, such as `..._train2017_5percent.json`."""
    source = Path(source)
    return source.with_name(f'{source.stem}_{str(float(percent)).removesuffix(".0")}percent.json')


def write_subset(source: str | Path, out: str | Path, percent: float, seed: int = 0,
                 overwrite: bool = False, report: Callable[[str], Any] = lambda text: None
                 ) -> SubsetSummary:
    """Write a share of a COCO file as a file of its own, which appears whole or not at all.

    Args:
        source (str | Path): COCO json of instances.
        out (str | Path): The json to be written; its folder is made where it is missing.
        percent (float): Share of the images; see `choose_images`.
        seed (int): See `choose_images`. Defaults to 0.
        overwrite (bool): Replace `out` where it is there. Defaults to False.
        report (Callable[[str], Any]): Told what is going on before each long stage.

    Returns:
        SubsetSummary: Counts of images, annotations and categories.

    Raises:
        FileNotFoundError: If there is no file `source`.
        FileExistsError: If `out` is there, and `overwrite` was not given.
        ValueError: If `source` is no COCO file of instances, `out` is `source` or a folder, or the
            share is out of range.
    """
    source, out = Path(source), Path(out)
    _check_percent(percent)
    if out.is_dir():
        raise ValueError(f'{out} is a folder; give the path of a json file.')
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f'{out} is the source itself; give another path for the subset.')
    if out.exists() and not overwrite:
        raise FileExistsError(f'{out} is there already. Add --overwrite to replace it, or give '
                              'another path.')
    report(f'reading {source}')
    content = read_json(source)
    report('choosing images')
    subset = subset_coco(content, percent, seed, source)
    report(f'writing {out}')
    out.parent.mkdir(parents=True, exist_ok=True)
    # dumps, since json.dump works in Python code, row by row
    write_json(out, lambda file: file.write(json.dumps(subset)))
    used = {row['category_id'] for row in subset['annotations']}
    return SubsetSummary(
        out, len(subset['images']), len(content['images']), len(subset['annotations']),
        len(content['annotations']), len(subset['categories']),
        tuple(str(row.get('name', row['id'])) for row in subset['categories']
              if row['id'] not in used))
