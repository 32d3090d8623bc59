"""Data set of unlabelled photos, with a proposal store as its annotation file."""
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import Compose
from mmselfsup.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from ..proposals.images import MAX_PIXELS, ImageError
from ..proposals.sources import open_source
from ..proposals.store import ProposalStore
from ..proposals.store_check import check_store_fits
from .transforms import LoadProposals

STAND_INS = 8  # replacements tried per photo; if 1 % of the photos are bad, 9 in a row are no chance
WAYS_OUT = ('Restore the files, or generate the proposals again, which skips such files and lists '
            'them (python tools/generate_proposals.py IMAGES OUT.arrow --overwrite), or allow more '
            'bad photos (train_dataloader.dataset.max_bad_share).')


class SampleKey(NamedTuple):
    """Key that determines a sample; `ResumableBatchSampler` yields these."""
    index: int  # type: ignore[assignment]
    epoch: int = 0
    seed: int = 0


class BadPhoto(NamedTuple):
    """A photo that cannot be used, the reason, and the photo that replaces it."""
    image: str
    reason: str
    replaced_by: str


@DATASETS.register_module()
class SoCoDataset(Dataset):
    """Unlabelled photos with the object proposals of a store.

    A sample has the pipeline's keys and `bad`: an empty string, or, if its photo cannot be used and
    another one replaces it, a JSON list of `BadPhoto`s. The replacement depends on
    (seed, epoch, index) only.

    Args:
        data_root (str): Folder, zip or tar archive that the store's image names are relative to.
        proposals (str): Proposal store, made by `tools/generate_proposals.py`.
        pipeline (Sequence[dict]): Transforms, see `transforms.py`.
        repeat (int): How often an epoch contains each photo, with other random draws each time; for
            small data sets. Defaults to 1.
        follow_links (bool): Whether links in `data_root` may lead out of it. Defaults to False.
        max_bad_share (float): Share of the photos, within [0, 1), that may be unusable before
            training stops. `BadImageHook` counts and lists them. Defaults to 0: the first one stops
            training.

    Raises:
        FileNotFoundError: If the store or the photos do not exist; the message says how to create
            them.
        ValueError: If the file is not a store, is damaged or has another version, if it lists photos
            that are not in `data_root`, or if `max_bad_share` is out of range.
    """

    def __init__(self, data_root: str, proposals: str, pipeline: Sequence[dict],
                 repeat: int = 1, follow_links: bool = False, max_bad_share: float = 0.0) -> None:
        if not 0 <= max_bad_share < 1:
            raise ValueError(f'max_bad_share must be within [0, 1), not {max_bad_share}.')
        self.store = ProposalStore.open(proposals)
        self.source = open_source(data_root, follow_links=follow_links)
        check_store_fits(self.store, self.source)
        # independent of the default scope where the data set is built, such as a detector's
        self.pipeline = Compose(
            [TRANSFORMS.build({'_scope_': 'mmselfsup', **transform}) for transform in pipeline])
        self.repeat = repeat
        self.max_bad_share = max_bad_share

    def __len__(self) -> int:
        return len(self.store) * self.repeat

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """Return the sample of (index, epoch, seed); a plain index means epoch 0, seed 0.

        Raises:
            ValueError: If the photo cannot be used, and either no replacement is allowed or the
                replacements that were tried cannot be used either.
        """
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(int(key))
        failed: dict[str, str] = {}
        for row in self._candidates(key):
            try:
                sample = self.pipeline(self.read(key, row))
            except ImageError as error:
                failed[self.store.name(row)] = error.reason
                continue
            sample['bad'] = json.dumps([BadPhoto(image, reason, self.store.name(row))
                                        for image, reason in failed.items()]) if failed else ''
            return sample
        (name, reason), *more = failed.items()
        raise ValueError(
            f'{name} (listed in {self.store.path}) cannot be used: {reason}'
            f'{f", and neither can {len(more)} more that were tried" if more else ""}. {WAYS_OUT}')

    def _candidates(self, key: SampleKey) -> Iterator[int]:
        """Yield the row of a sample's photo, then the rows of possible replacements."""
        yield key.index % len(self.store)
        if self.max_bad_share:
            rng = np.random.default_rng([key.seed, key.epoch, key.index, 1])
            yield from rng.integers(len(self.store), size=STAND_INS).tolist()

    def image_name(self, key: SampleKey) -> str:
        """Return the name of a sample's photo in the store."""
        return self.store[key.index % len(self.store)].image

    def box_counts(self) -> np.ndarray:
        """Return the number of proposals of each photo that the pipeline's filter keeps, (n,) int64."""
        load = next((t for t in self.pipeline.transforms if isinstance(t, LoadProposals)), None)
        if load is None or load.filter is None:
            return self.store.box_counts()
        return np.array([len(load.select(photo)['proposals']) for photo in self.store], dtype=np.int64)

    def fingerprint(self) -> str:
        """Return `data_fingerprint` of this data set."""
        return data_fingerprint(self.store, self.repeat)

    def read(self, key: SampleKey, row: int | None = None) -> dict[str, Any]:
        """Return the pipeline's input: the file's bytes, its row and its random generator.

        Args:
            key (SampleKey): Key of the sample.
            row (int, optional): Row of the photo in the store. Defaults to None: the sample's own row.

        Returns:
            dict[str, Any]: `img_path`, `bytes`, `row`, `max_pixels` and `rng`.

        Raises:
            ImageError: If the file cannot be read.
        """
        photo = self.store[key.index % len(self.store) if row is None else row]
        try:
            content = self.source.read_bytes(photo.image)
        except (OSError, KeyError) as error:
            reason = f'unreadable: {getattr(error, "strerror", None) or error}'
            raise ImageError(reason, photo.image) from error
        return dict(img_path=photo.image, bytes=content, row=photo,
                    max_pixels=self.store.metadata.get('max_pixels', MAX_PIXELS),
                    rng=np.random.default_rng([key.seed, key.epoch, key.index]))


def data_fingerprint(store: ProposalStore, repeat: int = 1) -> str:
    """Return a short description of a data set that differs between stores.

    Args:
        store (ProposalStore): The store.
        repeat (int): How often a photo is listed. Defaults to 1.

    Returns:
        str: Number of photos, size of the store, hash of its metadata.
    """
    metadata = json.dumps(store.metadata, sort_keys=True).encode()
    times = f' (each {repeat} times)' if repeat != 1 else ''
    return (f'{len(store)} photos{times}, store of {Path(store.path).stat().st_size} bytes, '
            f'{hashlib.sha256(metadata).hexdigest()[:12]}')
