"""Random subsets of COCO-style annotation files, drawn by image, such as mini-COCO."""
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..annotations.findings import MENDED
from ..annotations.judge import read_coco
from ..files import write_whole


@dataclass(frozen=True)
class SubsetSummary:
    """Counts of a subset and of its source, and what was mended in it."""

    path: Path
    images: int
    source_images: int
    annotations: int
    source_annotations: int
    categories: int
    empty_categories: tuple[str, ...]
    mended: tuple[str, ...] = ()


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


def subset_coco(content: dict[str, Any], percent: float, seed: int, source: str | Path
                ) -> dict[str, Any]:
    """Return a share of a COCO data set: the chosen images and their annotations.

    Everything else is kept, including categories without instances, so that class lists do not
    change. Rows keep their order. `info['subset']` records how the subset was made.

    Args:
        content (dict[str, Any]): Content of the JSON file as `read_coco` accepts it; it is not changed.
        percent (float): Share of the images; see `choose_images`.
        seed (int): See `choose_images`.
        source (str | Path): Path of the file, for error messages; its name is written to `info`.

    Returns:
        dict[str, Any]: The content of the subset's JSON file.

    Raises:
        ValueError: If there is no image, or the share is out of range.
    """
    images = content['images']
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
    judged = read_coco(source).accept()
    content = judged.content
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
              if row['id'] not in used), tuple(finding.line() for finding in judged.of(MENDED)))
