"""The data of a study: unlabelled photos, and labels for training, tuning and evaluation."""
import hashlib
import json
import shlex
import threading
from pathlib import Path
from typing import Any

from ..annotations.judge import read_coco
from ..annotations.photos import PhotoTree, settle_names
from ..datasets.coco_subset import choose_images, subset_coco, with_images
from ..files import whole_file
from ..proposals.sources import open_source
from ..runs.follow import run_command
from .plan import BOXES, Study

TUNE_SEED = 1  # seed of the split on which options are chosen
VAL_SEED = 2  # seed of the split that is held out as val where there is none
# A share of the labels is chosen with SHARE_SEED plus a study's seed. The sum must differ from the
# other seeds, because shares of the same seed are subsets of each other.
SHARE_SEED = 1000


class StudyData:
    """The files that a study's jobs read; `prepare` writes them.

    Args:
        study (Study): The study.
        root (str | Path): The folder with its data.
        folder (str | Path): The folder for the files.
    """

    def __init__(self, study: Study, root: str | Path, folder: str | Path) -> None:
        self.root = Path(root).resolve()
        # Absolute, because a data set would prepend its root to a relative path.
        self.folder = Path(folder).resolve()
        self._study = study

    def labels(self, split: str, seed: int = 0) -> Path:
        """Return the path of a COCO json whose file names are relative to `root`.

        Args:
            split (str): 'train', 'val', 'tune' or 'fit' (the two parts of train), or a share of train
                in percent, such as '25'.
            seed (int): Seed of a share. Defaults to 0.

        Returns:
            Path: The json.
        """
        return self.folder / (f'train_{split}percent_seed{seed}.json' if split.isdigit()
                              else f'{split}.json')

    def list_of(self, what: str) -> Path:
        """Return the path of a list of photos, 'unlabelled' or 'val'."""
        return self.folder / f'{what}.txt'

    def store(self, boxes: str, what: str = 'unlabelled') -> Path:
        """Return the path of the proposal store of a list's photos.

        Args:
            boxes (str): One of `plan.BOXES`.
            what (str): The list, 'unlabelled' or 'val'. Defaults to 'unlabelled'.

        Returns:
            Path: The store.
        """
        return self.folder / f'{what}_{boxes}.arrow'

    def prepare(self) -> None:
        """Write the labels and the lists of photos.

        Raises:
            FileNotFoundError: If a folder, a json or a photo is not in `root`.
            ValueError: If a json is not a COCO file of instances.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self._study.data
        splits = {split: with_classes(content, data['images'], data.get('classes', 'name'))
                  for split, content in self._splits().items()}
        train = splits['train']
        ids = [row['id'] for row in train['images']]
        tune = choose_images(ids, data['tune_percent'], TUNE_SEED)
        splits['tune'] = with_images(train, tune)
        splits['fit'] = with_images(train, set(ids) - tune)
        for split, content in splits.items():
            self._write(self.labels(split), json.dumps(content))
        shares = {step.get('share', 100) for step in self._study.order if step['stage'] == 'finetune'}
        for share in shares:
            for seed in self._study.seeds:
                self._write(self.labels(str(share), seed),
                            json.dumps(subset_coco(train, share, SHARE_SEED + seed, data['train'])))
        lists = {'unlabelled': self._unlabelled(),
                 'val': [row['file_name'] for row in splits['val']['images']]}
        source = open_source(self.root)
        for what, names in lists.items():
            missing = [name for name in names if name not in source]
            if missing:
                raise FileNotFoundError(
                    f'{len(missing)} of {len(names)} photos are not in {self.root}, such as '
                    f'{missing[0]}. --data must be the folder that contains all of them.')
            self._write(self.list_of(what), '\n'.join(names) + '\n')

    def fingerprint(self) -> str:
        """Return a hash of 12 hex digits of the files that `prepare` wrote."""
        paths = sorted([*self.folder.glob('*.json'), *self.folder.glob('*.txt')])
        return hashlib.sha256(b''.join(path.read_bytes() for path in paths)).hexdigest()[:12]

    def generate_stores(self) -> None:
        """Generate the proposal stores that are not finished; see `generate_store`."""
        used = sorted({method.boxes for method in self._study.methods.values()}, key=BOXES.index)
        for what, boxes in [*(('unlabelled', boxes) for boxes in used), ('val', BOXES[0])]:
            generate_store(self.list_of(what), self.store(boxes, what), self.root, boxes)

    def _splits(self) -> dict[str, dict]:
        """Return train and val."""
        data, train = self._study.data, self._read(self._study.data['train'])
        if 'val' in data:
            return dict(train=train, val=self._read(data['val']))
        ids = [row['id'] for row in train['images']]
        held_out = choose_images(ids, data['val_percent'], VAL_SEED)
        return dict(train=with_images(train, set(ids) - held_out), val=with_images(train, held_out))

    def _read(self, name: str) -> Any:
        path = self.root / name
        if not path.is_file():
            raise FileNotFoundError(f'There is no {path}. --data must be the folder that contains '
                                    f'{", ".join(map(str, self._named()))}.')
        judged = read_coco(path).accept()
        settle_names(judged, PhotoTree(self.root / self._study.data['images']))
        return judged.accept().content

    def _named(self) -> list[str]:
        data = self._study.data
        return list(dict.fromkeys([*data['unlabelled'], data['images'], data['train'],
                                   *([data['val']] if 'val' in data else [])]))

    def _unlabelled(self) -> list[str]:
        names = []
        for part in self._study.data['unlabelled']:
            if part.endswith('.json'):
                content = (self._splits()['train'] if part == self._study.data['train']
                           else self._read(part))
                names += [f'{self._study.data["images"]}/{row["file_name"]}'
                          for row in content['images']]
            elif (self.root / part).is_dir():
                names += [f'{part}/{name}' for name in open_source(self.root / part).names()]
            else:
                raise FileNotFoundError(f'There is no folder {self.root / part}. --data must be the '
                                        f'folder that contains {", ".join(self._named())}.')
        return names

    @staticmethod
    def _write(path: Path, text: str) -> None:
        if not path.is_file() or path.read_text() != text:  # keep files that running jobs may read
            with whole_file(path) as file:
                file.write(text)


def generate_store(listed: Path, store: Path, root: Path, boxes: str = BOXES[0],
                   stop: threading.Event | None = None) -> None:
    """Generate the proposals of listed photos; a finished store stays as it is.

    Args:
        listed (Path): List of the photos.
        store (Path): The store.
        root (Path): Folder that the names are relative to.
        boxes (str): One of `BOXES`. Defaults to selective search.
        stop (threading.Event, optional): See `run_training`. Defaults to None.

    Raises:
        Stopped: If it was stopped. The same call continues.
        ValueError: If it failed; its output says why.
    """
    command = ['tools/generate_proposals.py', str(listed), str(store), '--root', str(root), '--source',
               boxes]
    if run_command(command, stop):
        raise ValueError(f'python {shlex.join(command)} failed; see its output above.')


def with_classes(content: dict, images: str, key: str) -> dict:
    """Return a COCO data set with the classes of a study, in order of appearance.

    Args:
        content (dict): A COCO data set. It is not changed.
        images (str): Folder to prepend to each `file_name`.
        key (str): Key of a category that is its class, one of `plan.CLASSES`.

    Returns:
        dict: The COCO data set.

    Raises:
        ValueError: If a category has no such key.
    """
    rows = content['categories']
    if not all(isinstance(row.get(key), str) for row in rows):
        raise ValueError(f'A category of the annotations has no {key}, but the classes of the study '
                         f"are these. Add the key '{key}' to each entry of categories, or change "
                         'data.classes of the study.')
    names = list(dict.fromkeys(row[key] for row in rows))
    ids = {row['id']: names.index(row[key]) + 1 for row in rows}
    return {**content,
            'images': [{**row, 'file_name': f'{images}/{row["file_name"]}'}
                       for row in content['images']],
            'annotations': [{**row, 'category_id': ids[row['category_id']]}
                            for row in content['annotations']],
            'categories': [dict(id=i, name=name) for i, name in enumerate(names, 1)]}
