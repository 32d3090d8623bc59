"""The data of a study: annotations with its classes, photos for pretraining, and their proposals."""
import json
import os
import shlex
import threading
from pathlib import Path

from ..annotations.read import read_json
from ..files import write_whole
from ..proposals.sources import open_source
from ..runs.follow import run_command
from .plan import BOXES, DataSet


def annotations_of(data: DataSet, root: Path, folder: Path) -> tuple[Path, Path]:
    """Return the annotations of a data set with the study's classes.

    Args:
        data (DataSet): The data set.
        root (Path): Folder that its paths are relative to.
        folder (Path): Folder for annotations that have other classes than the files.

    Returns:
        tuple[Path, Path]: Train and val.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a category has no supercategory, although these are the classes.
    """
    paths = root / data.train, root / data.val
    for path in (*paths, root / data.images):
        if not path.exists():
            raise FileNotFoundError(f'There is no {path}. --data must be the folder that contains '
                                    f'{data.images}, {data.train} and {data.val}.')
    if data.classes == 'name':
        return paths
    made = []
    for split, path in zip(('train', 'val'), paths):
        made.append(folder / f'{split}_{data.classes}.json')
        content = with_supercategories(read_json(path), path)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content).encode()
        if not made[-1].is_file() or made[-1].read_bytes() != text:  # a running job may read it
            write_whole(made[-1], text)
    return made[0], made[1]


def with_supercategories(content: dict, path: Path) -> dict:
    """Return a COCO data set whose classes are the supercategories, in order of appearance.

    Args:
        content (dict): A COCO data set. It is not changed.
        path (Path): Its file, for messages.

    Returns:
        dict: The COCO data set.

    Raises:
        ValueError: If a category has no supercategory.
    """
    rows = content['categories']
    if not all(isinstance(row.get('supercategory'), str) for row in rows):
        raise ValueError(f'A category of {path} has no supercategory, but the classes of the study are '
                         "these. Add the key 'supercategory' to each entry of categories, or set "
                         "classes='name' for this data set.")
    names = list(dict.fromkeys(row['supercategory'] for row in rows))
    ids = {row['id']: names.index(row['supercategory']) + 1 for row in rows}
    return {**content,
            'annotations': [{**row, 'category_id': ids[row['category_id']]}
                            for row in content['annotations']],
            'categories': [dict(id=i, name=name) for i, name in enumerate(names, 1)]}


def photos_of(data: DataSet, train: Path, val: Path, root: Path, folder: Path) -> tuple[Path, Path]:
    """Return the photos that pretraining sees: those of train and of `unlabelled` that are not in val.

    Args:
        data (DataSet): The data set.
        train (Path): Its annotations to train on.
        val (Path): Its annotations to evaluate on.
        root (Path): Folder that its paths are relative to.
        folder (Path): Folder for a list of the photos, where they are in several folders.

    Returns:
        tuple[Path, Path]: Photos as the tools take them (a COCO json or a list), and the folder that
        their names are relative to.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    names, kept_out = ([f'{data.images}/{row["file_name"]}' for row in read_json(path)['images']]
                       for path in (train, val))
    if not data.unlabelled and not set(names) & set(kept_out):
        return train, root / data.images
    for part in data.unlabelled:
        names += [f'{part}/{name}' for name in open_source(root / part).names()]
    unseen = {os.path.normpath(name) for name in kept_out}
    names = [name for name in names if os.path.normpath(name) not in unseen]
    listed = folder / 'photos.txt'
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(listed, ('\n'.join(names) + '\n').encode())
    return listed, root


def generate_store(photos: Path, store: Path, root: Path, boxes: str = BOXES[0],
                   stop: threading.Event | None = None) -> None:
    """Generate the proposals of photos; a finished store stays as it is.

    Args:
        photos (Path): A list of the photos, or a COCO json.
        store (Path): The store.
        root (Path): Folder that the names are relative to.
        boxes (str): One of `BOXES`. Defaults to selective search.
        stop (threading.Event, optional): See `run_training`. Defaults to None.

    Raises:
        Stopped: If it was stopped. The same call continues.
        ValueError: If it failed; its output says why.
    """
    command = ['tools/generate_proposals.py', str(photos), str(store), '--root', str(root), '--source',
               boxes]
    if run_command(command, stop):
        raise ValueError(f'python {shlex.join(command)} failed; see its output above.')
