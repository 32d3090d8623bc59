"""A proposal store is the annotation file: the data set lists what the store lists."""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Sequence, Union

import numpy as np
from mmcv.transforms import Compose
from mmselfsup.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from ..proposals.sources import open_source
from ..proposals.store import ProposalStore


class SampleKey(NamedTuple):
    """What a sample is a function of; `ResumableBatchSampler` yields these."""
    index: int
    epoch: int = 0
    seed: int = 0


@DATASETS.register_module()
class SoCoDataset(Dataset):
    """Unlabelled photos with the object proposals of a store.

    Args:
        data_root (str): The folder (or zip, or tar) that the store's image names are relative to.
        proposals (str): The store, made by `tools/generate_proposals.py`.
        pipeline (list[dict]): Transforms, see `transforms.py`.
        repeat (int): How often an epoch shows each photo, with other randomness each time; for
            small sets. Defaults to 1.

    Raises:
        FileNotFoundError: No such store or photos; the message says how to make them.
        ValueError: The file is no store, is broken, or of another version; or the first photos of
            the store are not in `data_root`.
    """

    def __init__(self, data_root: str, proposals: str, pipeline: Sequence[Dict],
                 repeat: int = 1) -> None:
        self.store = ProposalStore.open(proposals)
        if len(self.store) == 0:
            raise ValueError(f'{proposals} lists no image. Make it again from a folder of photos: '
                             f'python tools/generate_proposals.py IMAGES {proposals}')
        self.source = open_source(data_root)
        self._check_photos(data_root, proposals)
        # whatever scope is the default where the data set is built, such as a detector's
        self.pipeline = Compose(
            [TRANSFORMS.build({'_scope_': 'mmselfsup', **transform}) for transform in pipeline])
        self.repeat = repeat

    def _check_photos(self, data_root: str, proposals: str) -> None:
        """Look for a few of the photos, so that a wrong folder is told at once, not in a worker."""
        rows = np.unique(np.linspace(0, len(self.store) - 1, num=16).astype(int))
        names = [self.store[int(i)].image for i in rows]
        missing = []
        for name in names:
            try:
                self.source.read_bytes(name)
            except (OSError, KeyError):
                missing.append(name)
        if missing:
            raise ValueError(
                f'{len(missing)} of {len(names)} photos looked up from {proposals} are not in '
                f'{data_root} (the first: {missing[0]}). Set data_root to the folder that the '
                'proposals were made from, or make them again: '
                f'python tools/generate_proposals.py {data_root} OUT.arrow')

    def __len__(self) -> int:
        return len(self.store) * self.repeat

    def __getitem__(self, key: Union[int, SampleKey]) -> Dict[str, Any]:
        """Return the sample of (index, epoch, seed); a plain index means epoch 0, seed 0."""
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(int(key))
        return self.pipeline(self.read(key))

    def image_name(self, key: SampleKey) -> str:
        """Return the name of a sample's photo in the store."""
        return self.store[key.index % len(self.store)].image

    def fingerprint(self) -> str:
        """Describe the data set in a few words that differ where another store is used."""
        size = Path(self.store.path).stat().st_size
        return (f'{len(self.store)} photos, store of {size} bytes, '
                f'{hashlib.sha256(json.dumps(self.store.metadata, sort_keys=True).encode()).hexdigest()[:12]}')

    def read(self, key: SampleKey) -> Dict[str, Any]:
        """Return what the pipeline starts from: the file's bytes, its row, and its randomness."""
        row = self.store[key.index % len(self.store)]
        try:
            content = self.source.read_bytes(row.image)
        except (OSError, KeyError) as error:
            raise ValueError(
                f'{row.image} (listed in {self.store.path}) cannot be read: {error}. '
                'Restore the file, or make the proposals again without it.') from error
        return dict(img_path=row.image, bytes=content, row=row,
                    rng=np.random.default_rng([key.seed, key.epoch, key.index]))
