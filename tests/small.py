"""Small photos, a store of them, and a SoCo small enough to train in a test."""
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image, ImageDraw

from projects.soco.proposals.store import StoreWriter

ROOT = Path(__file__).resolve().parents[1]


def make_photos(folder: Path, count: int, size: tuple[int, int] = (96, 72), seed: int = 0) -> None:
    """Draw `count` pictures of coloured shapes on noise, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        noise = rng.integers(90, 130, (size[1], size[0], 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        draw = ImageDraw.Draw(picture)
        for _ in range(4):
            x, y = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
            draw.ellipse([x, y, x + size[0] // 3, y + size[1] // 3],
                         fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
        picture.save(folder / f'photo_{i:03}.png')


def make_store(path: Path, photos: Path, boxes_per_photo: int = 6, seed: int = 0) -> Path:
    """Write a store with random boxes for every photo of a folder."""
    rng = np.random.default_rng(seed)
    with StoreWriter(path, dict(rules=['made up'])) as writer:
        for photo in sorted(photos.glob('*.png')):
            with Image.open(photo) as picture:
                width, height = picture.size
            corner = rng.integers(0, (width // 2, height // 2), (boxes_per_photo, 2))
            side = rng.integers(16, (width // 2, height // 2), (boxes_per_photo, 2))
            writer.add(photo.name, width, height, np.concatenate([corner, side], 1), 'made up')
    return path


def write_set(folder: Path, photos: int = 8) -> tuple[Path, Path, Path]:
    """Write photos with two objects each; return their folder, train and val."""
    make_photos(folder / 'photos', photos)
    names = sorted(path.name for path in (folder / 'photos').iterdir())
    paths = []
    for split, part in (('train', names[:photos // 2]), ('val', names[photos // 2:])):
        rows = [dict(id=i, file_name=name, width=96, height=72) for i, name in enumerate(part, 1)]
        objects = [dict(id=2 * row['id'] + k, image_id=row['id'], category_id=k + 1, iscrowd=0,
                        bbox=[5 + 30 * k, 5, 30, 30], area=900, segmentation=[])
                   for row in rows for k in range(2)]
        paths.append(folder / f'{split}.json')
        paths[-1].write_text(json.dumps(dict(
            images=rows, annotations=objects,
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])))
    return folder / 'photos', *paths


def tiny_config(folder: Path, photos: int = 12, narrow: bool = True, **changes) -> Config:
    """The quickstart's config with small views, on generated photos; `changes` are dotted keys."""
    make_photos(folder / 'photos', photos)
    store = make_store(folder / 'proposals.arrow', folder / 'photos')
    cfg = Config.fromfile(ROOT / 'configs/soco_r18_fpn_quickstart.py')
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(folder / 'photos'),
        'train_dataloader.dataset.proposals': str(store),
        'train_dataloader.dataset.repeat': 1,
        'train_dataloader.dataset.pipeline.1.views.0.size': 48,
        'train_dataloader.dataset.pipeline.1.views.1.size': 48,
        'train_dataloader.dataset.pipeline.1.views.2.size': 32,
        'train_dataloader.batch_size': 2,
        'work_dir': str(folder / 'work'),
        'log_level': 'WARNING',
    })
    if narrow:  # a quarter of the backbone's channels: it is built, saved and compared in no time
        cfg.model.backbone.base_channels = 16
        cfg.model.neck.in_channels = [16, 32, 64, 128]
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


def assert_same(a, b, path: str = '') -> None:
    """Compare two nested structures to the bit."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f'{path}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f'{path}.{i}')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path
