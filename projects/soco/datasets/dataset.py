"""A proposal store is the annotation file: the data set lists what the store lists."""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Sequence, Union

import numpy as np
from mmcv.transforms import Compose
from mmselfsup.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from ..proposals.fit import check_store_fits
from ..proposals.sources import open_source
from ..proposals.store import ProposalStore


class SampleKey(NamedTuple):
    """What a sample is a function of; `ResumableBatchSampler` yields these."""
    index: int  # type: ignore[assignment]
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
        follow_links (bool): Whether links in `data_root` may lead out of it. Defaults to False.

    Raises:
        FileNotFoundError: No such store or photos; the message says how to make them.
        ValueError: The file is no store, is broken, or of another version; or lists photos
            that are not in `data_root`.
    """

    def __init__(self, data_root: str, proposals: str, pipeline: Sequence[Dict],
                 repeat: int = 1, follow_links: bool = False) -> None:
        self.store = ProposalStore.open(proposals)
        self.source = open_source(data_root, follow_links=follow_links)
        check_store_fits(self.store, self.source)
        # whatever scope is the default where the data set is built, such as a detector's
        self.pipeline = Compose(
            [TRANSFORMS.build({'_scope_': 'mmselfsup', **transform}) for transform in pipeline])
        self.repeat = repeat

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
        metadata = json.dumps(self.store.metadata, sort_keys=True).encode()
        return (f'{len(self.store)} photos, store of {size} bytes, '
                f'{hashlib.sha256(metadata).hexdigest()[:12]}')

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
