"""Large and small objects: which proposals and views fit them, and a sentence if others fit better."""
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from ..annotations.read import read_json
from ..annotations.values import as_number
from ..datasets.geometry import zoom_of
from ..datasets.transforms import LoadProposals, ProposalViews, read_filter, transform_in
from ..models.roi_heads import level_name
from ..proposals.recall import recall
from ..proposals.store import ProposalStore
from .read import plain

LARGE, SMALL = 'large', 'small'  # values of --objects
# Proposals in views of the whole photo; a box of 0.1 has 10 pixels in a view of 96. Our choice: the
# official limits of 0.3 to 0.8 leave out most objects of docs/results/own_photos.md.
WHOLE = dict(min_side=8, max_ratio=3, min_size=0.1, max_size=0.8, fallback=True)
SEARCH = ('--setting', 'fine', '--short-side', '320', '--keep', 'all')  # tools/generate_proposals.py
TILE = 256  # side of a tile in pixels; objects of up to 0.8 of it, as the paper's of the photo
MIN_SIDE = 16  # four cells of a level of stride 4, as the detector sees the object
TRIES = 20  # draws of a tile and its windows, until both views of each pair show an object
# A store of this search has 0.24 to 0.36 of its boxes within `WHOLE` on five sets of photos.
RARE = 0.125
BETTER = 1.5  # as many objects must fit the other option for it to be suggested


class Resolution(NamedTuple):
    """The size at which a detector sees photos.

    Attributes:
        scale (tuple[int, int]): Width and height in pixels, see `zoom_of`.
        keep_ratio (bool): Whether a photo keeps its shape.
        key (str): Dotted key of the scale in the detector's config.
    """

    scale: tuple[int, int]
    keep_ratio: bool
    key: str

    def __str__(self) -> str:
        return f'{"at most " if self.keep_ratio else ""}{self.scale[0]} × {self.scale[1]} pixels'

    @property
    def tile(self) -> int:
        """Side of a tile in pixels: `TILE`, or less if the detector sees photos smaller."""
        return min(TILE, max(32, int(min(self.scale)) // 32 * 32))


class Annotated(NamedTuple):
    """Annotated objects; see `read_annotated`.

    Attributes:
        path (Path): The COCO json.
        names (list[str]): Photo of each object.
        table (np.ndarray): (n, 6) width and height of the photo, x, y, width and height, in pixels.
    """

    path: Path
    names: list[str]
    table: np.ndarray


def _built(cfg: Config, kind: type) -> Any:
    """Return a transform of a config, built."""
    arguments = plain(transform_in(cfg, kind.__name__))
    return kind(**{key: value for key, value in arguments.items() if key != 'type'})


def _spread(count: int, samples: int) -> list[int]:
    """Return at most `samples` of `count` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, samples).round().astype(int)).tolist()


def resolution_of(detector: Config) -> Resolution | None:
    """Return the size at which a detector sees photos in its test pipeline.

    Args:
        detector (Config): The output of `read_detector`.

    Returns:
        Resolution | None: Scale of the first `Resize`; None if there is none.
    """
    key = 'test_dataloader.dataset'
    dataset = plain(detector.get('test_dataloader') or {}).get('dataset')
    while isinstance(dataset, dict) and 'pipeline' not in dataset:  # inside RepeatDataset and the like
        key, dataset = f'{key}.dataset', dataset.get('dataset')
    for i, transform in enumerate(dataset['pipeline'] if dataset else []):
        scale = transform.get('scale')
        if str(transform.get('type')).endswith('Resize') and scale:
            scale = (scale, scale) if isinstance(scale, (int, float)) else tuple(scale)
            return Resolution(scale, bool(transform.get('keep_ratio', False)),
                              f'{key}.pipeline.{i}.scale')
    return None


def view_sizes(recipe: Config, resolution: Resolution | None) -> list[int]:
    """Return the sides of the views that are cut from tiles.

    Args:
        recipe (Config): A pretraining config.
        resolution (Resolution | None): That of the detector.

    Returns:
        list[int]: In proportion to those of the recipe, multiples of 32; the first is that of a tile.

    Raises:
        ValueError: If the resolution is not known.
    """
    if resolution is None:
        raise ValueError(
            f'--objects {SMALL} cuts views at the size at which the detector sees photos, and its '
            'config has no Resize with a scale in test_dataloader.dataset.pipeline. Add one, or use '
            f'--objects {LARGE}.')
    sizes = [view.size for view in transform_in(recipe, 'ProposalViews').views]
    return [max(32, round(resolution.tile * size / sizes[0] / 32) * 32) for size in sizes]


def choose_proposals(cfg: Config, objects: str, resolution: Resolution | None) -> None:
    """Set the proposals that a pretraining config uses, and for small objects its tiles.

    Args:
        cfg (Config): The output of `derive`; it is changed in place.
        objects (str): `LARGE` or `SMALL`.
        resolution (Resolution | None): That of the detector; needed for small objects.
    """
    load, views = transform_in(cfg, 'LoadProposals'), transform_in(cfg, 'ProposalViews')
    if objects == LARGE:
        load.keep = dict(WHOLE)
        return
    views.tile = views.views[0].size
    views.max_tries = TRIES
    load.update(
        keep=small_limits(views.tile),
        seen_at=dict(scale=resolution.scale, keep_ratio=resolution.keep_ratio),
        scaled_side=(min if resolution.keep_ratio else max)(resolution.scale))


def small_limits(tile: int) -> dict[str, float]:
    """Return the limits of proposals in tiles, in pixels as the detector sees them."""
    return dict(min_side=MIN_SIDE, max_side=round(0.8 * tile), max_ratio=3)


def fit_levels(cfg: Config, store: ProposalStore, samples: int = 500) -> str:
    """Set the borders between pyramid levels from the sizes that boxes have in the views.

    The border between the levels of stride 8 and 16 is the median of the boxes in the first view; the
    borders double with the stride. In the paper's views, it is 96 pixels, and the median near it.

    Args:
        cfg (Config): The output of `derive` after `choose_proposals`, for small objects; it is changed
            in place.
        store (ProposalStore): The proposals.
        samples (int): Number of photos to measure, evenly spread. Defaults to 500.

    Returns:
        str: A sentence on the proposals, the tiles and the borders.

    Raises:
        ValueError: If no photo has a proposal that is used, or the store does not have all boxes.
    """
    made_by = store.metadata.get('filter', {}).get('name', 'all')
    if made_by != 'all':
        raise ValueError(f'{store.path} contains only the boxes that the filter {made_by} keeps. '
                         'Delete it to search the photos again, or make it with --keep all.')
    limits = plain(transform_in(cfg, 'LoadProposals'))['keep']
    loading, cutting = (_built(cfg, kind) for kind in (LoadProposals, ProposalViews))
    counts, sizes = [], []
    for row in _spread(len(store), samples):
        photo = store[row]
        results = dict(row=photo, rng=np.random.default_rng([0, 0, row]), **loading.select(photo))
        counts.append(len(results['proposals']))
        if counts[-1]:
            boxes = cutting.choose(results)[2][:, 0].astype(float)  # (P, K, 4) in the first view
            sizes.append(np.sqrt((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)).ravel())
    if not sizes:
        raise ValueError(
            f'No photo has a proposal of {limits["min_side"]} to {limits["max_side"]} pixels as the '
            f'detector sees it, so there is nothing that --objects {SMALL} could learn from. Use '
            f'--objects {LARGE}.')
    median = float(np.median(np.concatenate(sizes)))
    sentence = (
        f'Views are tiles of {cutting.tile} pixels of photos as the detector sees them. Proposals of '
        f'{limits["min_side"]} to {limits["max_side"]} pixels are used: {np.mean(counts):.0f} per '
        f'photo, with a median of {median:.0f} pixels in a view; '
        f'{np.mean(np.array(counts) == 0):.0%} of the photos have none.')
    extractor = cfg.model.roi_head.bbox_roi_extractor
    if 'level_sizes' not in extractor:  # one level
        return sentence
    borders = [max(1, round(median * stride / 8)) for stride in extractor.featmap_strides[:-1]]
    extractor.level_sizes = borders
    names = [level_name(stride) for stride in extractor.featmap_strides]
    parts = [f'{name} up to {border}' for name, border in zip(names, borders)]
    return f'{sentence} Pyramid levels: {", ".join([*parts, names[-1]])}.'


def advise_by_annotations(annotated: Annotated, objects: str, resolution: Resolution | None
                          ) -> str | None:
    """Return a sentence if the annotated objects have sizes that other proposals have.

    Args:
        annotated (Annotated): The objects.
        objects (str): `LARGE` or `SMALL`, what the run uses.
        resolution (Resolution | None): That of the detector.

    Returns:
        str | None: The numbers and the option to give; None if what the run uses fits, or nothing is
        known.
    """
    table = annotated.table
    if not len(table) or resolution is None:
        return None
    width, height, regions = table[:, 0], table[:, 1], table[:, 2:]
    zoom = np.array([zoom_of(w, h, resolution.scale, resolution.keep_ratio) for w, h in table[:, :2]])
    seen = regions * np.tile(zoom, 2)
    fits = {
        LARGE: read_filter(WHOLE).rules[0].keeps(regions, width, height).mean(),
        SMALL: read_filter(small_limits(resolution.tile)).rules[0].keeps(seen, width, height).mean()}
    median = np.median(np.sqrt(seen[:, 2:].prod(axis=1)))
    share = np.median(np.sqrt(regions[:, 2:].prod(axis=1) / (width * height)))
    facts = (f'{annotated.path.name} annotates {len(table)} objects, with a median size of {share:.0%} '
             f'of the photo, {median:.0f} pixels as the detector sees it ({resolution})')
    if median < MIN_SIDE:
        # not beyond the photos' own size, where there is nothing more to see
        factor = min(2 * MIN_SIDE / median, max(1, 1 / np.median(zoom)))
        scale = ','.join(str(round(side * factor)) for side in resolution.scale)
        return (f'{facts}. The detector hardly sees objects below {MIN_SIDE} pixels: enlarge the scale '
                f'of its pipelines, for example --cfg-options {resolution.key}=[{scale}], or cut the '
                'photos into parts.')
    other = SMALL if objects == LARGE else LARGE
    if fits[other] < BETTER * fits[objects]:
        return None
    return (f'{facts}. Proposals of --objects {objects} have the size of {fits[objects]:.0%} of them, '
            f'those of --objects {other} of {fits[other]:.0%}. Try --objects {other}.')


def describe_met(cfg: Config, store: ProposalStore, annotated: Annotated) -> str | None:
    """Return a sentence on how many annotated objects the proposals meet that a config uses.

    Args:
        cfg (Config): A pretraining config.
        store (ProposalStore): The proposals.
        annotated (Annotated): The objects.

    Returns:
        str | None: The share of the objects that a proposal meets with an IoU of at least 0.5; None if
        there are no objects in the photos of the store.
    """
    loading = _built(cfg, LoadProposals)
    objects: dict[str, list] = {}
    for name, row in zip(annotated.names, annotated.table):
        objects.setdefault(name, []).append(row[2:])
    theirs = [photo for photo in store if photo.image in objects]
    found = recall((np.array(objects[photo.image]), _sides(loading.select(photo)['proposals']),
                    (photo.width, photo.height)) for photo in theirs)
    if not len(found.overlaps):
        return None
    return (f'A proposal that is used meets {found.at(0.5):.1%} of the {len(found.overlaps)} annotated '
            'objects (IoU of at least 0.5).')


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Return boxes (n, 4) x1 y1 x2 y2 as x y w h."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def read_annotated(path: Path) -> Annotated:
    """Read the objects of a COCO json; entries that cannot be read are left out."""
    content = read_json(path)
    images, annotations = (
        [row for row in content.get(key) or [] if isinstance(row, dict)]
        if isinstance(content, dict) and isinstance(content.get(key), list) else []
        for key in ('images', 'annotations'))
    photos = {str(row.get('id')): row for row in images}
    names, found = [], []
    for row in annotations:
        photo, box = photos.get(str(row.get('image_id'))), row.get('bbox')
        if photo is None or not isinstance(box, list) or len(box) != 4:
            continue
        values = [as_number(value) for value in (photo.get('width'), photo.get('height'), *box)]
        if None not in values and min(values[:2]) > 0 and min(values[4:]) >= 0:
            names.append(str(photo.get('file_name')))
            found.append(values)
    return Annotated(path, names, np.array(found, dtype=np.float64).reshape(-1, 6))


def advise_by_proposals(store: ProposalStore, samples: int = 1000) -> str | None:
    """Return a sentence if few proposals have the size that large objects have.

    Args:
        store (ProposalStore): A store of all boxes that the search found.
        samples (int): Number of photos to measure, evenly spread. Defaults to 1000.

    Returns:
        str | None: The numbers and the option to give; None if enough boxes have it.
    """
    rule = read_filter(WHOLE).rules[0]
    kept = total = 0
    for row in _spread(len(store), samples):
        regions = store.regions(row)
        kept += int(rule.keeps(regions, *store.size(row)).sum())
        total += len(regions)
    if not total or kept >= RARE * total:
        return None
    return (f'Only {kept / total:.0%} of the boxes that were found have {rule.min_size} to '
            f'{rule.max_size} of the size of the photo (on photos of one large object, about 25%). If '
            f'yours contain many small objects, try --objects {SMALL}.')
