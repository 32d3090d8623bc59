"""Transforms from a row of the proposal store to views and row-aligned boxes.

Windows and boxes are drawn first, without reading pixels; then each view is cropped and resized once,
as uint8. The colour augmentation runs later, in batches, in `SoCoDataPreprocessor`. All randomness
comes from `results['rng']`, which `SoCoDataset` seeds with (seed, epoch, index of the image).

Shapes: V views, P = V - 1 pairs (the first view with each other view), K proposals per pair.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmselfsup.registry import TRANSFORMS

from ..proposals.filters import BoxFilter, custom_filter, get_filter
from ..proposals.images import MAX_PIXELS, ImageError
from ..proposals.store import ImageProposals
from .colours import PhotometricPolicy
from .decoding import decode_photo
from .geometry import (
    Window,
    flip_boxes,
    jitter_boxes,
    overlaps,
    sample_tile,
    sample_window,
    shares_inside,
    to_view,
    zoom_of,
)

# keys of a view that are not arguments of `PhotometricPolicy`
GEOMETRY = {'size', 'area', 'ratio', 'same_window_as', 'finest_level'}
MIN_INSIDE = 0.5  # least share of a proposal's area that views of a tile show of it


def transform_in(cfg: Config, kind: str) -> ConfigDict:
    """Return the config of a transform in the pipeline of a pretraining config.

    Args:
        cfg (Config): A pretraining config.
        kind (str): The transform's `type`.

    Returns:
        ConfigDict: The config of the first transform of this type.

    Raises:
        ValueError: If the pipeline has no such transform.
    """
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform['type'] == kind:
            return transform
    raise ValueError(f'{cfg.filename}: train_dataloader.dataset.pipeline has no {kind}. Use a '
                     'pretraining config, such as configs/soco_r50_fpn_400e.py.')


@TRANSFORMS.register_module()
class LoadProposals(BaseTransform):
    """Decode the photo and read its boxes from its row of the store.

    Required keys: `bytes` (content of the file), `img_path`, `row` (of the `ProposalStore`). Optional
    key: `max_pixels` (the largest photo that is decoded, width x height; by default the generator's).
    Added keys: `img` ((H, W, 3) uint8, BGR, upright), `reduction` (width of a pixel of `img` in pixels
    of the photo; 1 unless `scaled_side` is set), `zoom` (factors by which a detector enlarges width and
    height; 1 and 1 unless `seen_at` is set), `proposals` ((n, 4) float32, within the photo; empty if
    the store has none). Removed key: `bytes`.

    Args:
        max_proposals (int, optional): Number of boxes to keep, from the first. Defaults to None: all.
        keep (str | Mapping[str, Any], optional): Filter of the boxes: a name of `get_filter`, or
            arguments of `custom_filter`. Its pixels are those of `seen_at`. Defaults to None: all boxes
            of the store.
        seen_at (Mapping[str, Any], optional): Size at which a detector sees the photo: `scale` (width
            and height in pixels) and `keep_ratio` of mmcv's `Resize`, see `zoom_of`. Defaults to None:
            the photo's own.
        scaled_side (int, optional): Let libjpeg decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long
            as the short side keeps this many pixels; about 1.4 times the largest view is enough. Use
            it for large photos; below about 640 pixels it gains nothing. Pixels differ slightly,
            because libjpeg averages differently from a single resize. Defaults to None: never.

    Raises:
        ImageError: If the photo cannot be used, see `decode_photo`.
        ValueError: If `scaled_side` is below 1, or `keep` or `seen_at` is not understood.
    """

    def __init__(self, max_proposals: int | None = None, scaled_side: int | None = None,
                 keep: str | Mapping[str, Any] | None = None,
                 seen_at: Mapping[str, Any] | None = None) -> None:
        if scaled_side is not None and scaled_side < 1:
            raise ValueError(f'scaled_side must be at least 1 pixel, or None, not {scaled_side}.')
        self.max_proposals = max_proposals
        self.scaled_side = scaled_side
        self.filter = None if keep is None else read_filter(keep)
        self.seen_at = None if seen_at is None else dict(seen_at)
        if self.seen_at is not None and (
                not self.seen_at.keys() <= {'scale', 'keep_ratio'} or
                len(self.seen_at.get('scale', ())) != 2 or min(self.seen_at['scale']) < 1):
            raise ValueError(f'seen_at = {self.seen_at}: set `scale` to a width and a height of at '
                             'least 1 pixel, and `keep_ratio` to True or False.')

    def transform(self, results: dict) -> dict:
        """Replace `bytes` by `img`, `reduction`, `zoom` and `proposals`."""
        row, content = results['row'], results.pop('bytes')
        try:
            img, reduction = decode_photo(content, (row.width, row.height),
                                          results.get('max_pixels', MAX_PIXELS), self.scaled_side)
        except ImageError as error:
            raise ImageError(error.reason, results['img_path']) from error
        results.update(img=img, reduction=reduction, **self.select(row))
        return results

    def select(self, row: ImageProposals) -> dict[str, Any]:
        """Return `zoom` and `proposals` of a row of the store, without reading pixels."""
        zoom = (1.0, 1.0) if self.seen_at is None else zoom_of(row.width, row.height, **self.seen_at)
        limits = np.array([row.width, row.height] * 2, dtype=np.float32)
        boxes = np.clip(row.boxes, 0, limits).astype(np.float32)
        if self.filter is not None:
            regions = np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 0)], axis=1)
            kept = self.filter.marks(regions * (zoom * 2), row.width * zoom[0], row.height * zoom[1])
            boxes = boxes[kept]
        return dict(zoom=zoom, proposals=boxes[:self.max_proposals])


def read_filter(keep: str | Mapping[str, Any]) -> BoxFilter:
    """Return the filter that `LoadProposals.keep` describes.

    Args:
        keep (str | Mapping[str, Any]): A name of `get_filter`, or arguments of `custom_filter`.

    Returns:
        BoxFilter: The filter.

    Raises:
        ValueError: If there is no such filter.
    """
    if isinstance(keep, str):
        return get_filter(keep)
    try:
        return custom_filter(**keep)
    except TypeError as error:
        raise ValueError(f'LoadProposals: keep = {dict(keep)} is not a filter: {error}. Use the name '
                         'of a filter, or min_side, max_side, max_ratio, min_size, max_size and '
                         'fallback.') from error


@TRANSFORMS.register_module()
class ProposalViews(BaseTransform):
    """Crop the views of a photo and find the boxes that each pair shares (paper, section 3.2).

    The windows of all views are drawn together, up to `max_tries` times, until each pair shares
    `min_shared` proposals (halved after each failed try, but at least 1). For each pair, up to K
    proposals are drawn from those that overlap both windows. If there are fewer than K, some are
    repeated; a pair that shares none gets the whole views as boxes. Row i of a pair's two box lists is
    the same object. The first view's boxes are jittered. Each view is mirrored at random.

    With `tile`, a tile of the photo takes the place of the whole photo, for small objects: it contains
    a proposal of the photo, drawn uniformly, at a uniform position, and is drawn again with the
    windows. A pair then shares the proposals of which both of its views show at least half (our
    choice).

    Required keys: `img`, `reduction`, `row`, `proposals`, `rng`, with `tile` also `zoom`. Added keys:
    `views` (list of (H_v, W_v, 3) uint8), `bboxes` ((P, 2, K, 4) float32, pixels of the view), `policy`
    (the `PhotometricPolicy` of all views) and `finest_levels` (list of V integers).

    Args:
        views (Sequence[Mapping[str, Any]]): One dict per view with all of its settings. `size` (int,
            side in pixels) is required. The window is set by `area` (range of the share of the photo)
            and optionally `ratio` (range of width / height, default 3/4 to 4/3), or by
            `same_window_as` (index of an earlier view whose window and proposals it shares; SoCo*);
            without either, the view is the whole photo, resized to a square. `finest_level` (int,
            default 0) is the finest pyramid level that the model computes for this view, 0 being the
            finest of the neck; smaller boxes are pooled from this level. All other keys are arguments
            of `PhotometricPolicy`.
        num_proposals (int): Number K of proposals per pair. Defaults to 4.
        jitter_prob (float): Probability that a box of the first view is jittered, within [0, 1].
            Defaults to 0.5.
        jitter_ratio (float): Largest shift or growth as a share of the box. Defaults to 0.1.
        flip_prob (float): Probability that a view is mirrored, within [0, 1]. Defaults to 0.5.
        min_shared (int): Number of proposals that each pair should share. Defaults to 2.
        max_tries (int): Largest number of draws of the windows. Defaults to 5.
        tile (int, optional): Side of the tile in pixels of the photo as a detector sees it
            (`LoadProposals.seen_at`); a photo of smaller sides is enlarged. Defaults to None: the whole
            photo.

    Raises:
        ValueError: If a view's dict has none of the three forms, there are fewer than two views, or
            another argument is out of range.
    """

    def __init__(self,
                 views: Sequence[Mapping[str, Any]],
                 num_proposals: int = 4,
                 jitter_prob: float = 0.5,
                 jitter_ratio: float = 0.1,
                 flip_prob: float = 0.5,
                 min_shared: int = 2,
                 max_tries: int = 5,
                 tile: int | None = None) -> None:
        if len(views) < 2:
            raise ValueError(f'ProposalViews compares views and needs at least 2, not {len(views)}.')
        for v, view in enumerate(views):
            shared = view.get('same_window_as', 0)
            if 'size' not in view or not 0 <= shared < max(v, 1):
                raise ValueError(
                    f'views[{v}] = {dict(view)}: set `size` and, for a crop, `area` (and `ratio`), '
                    'or `same_window_as` with the index of an earlier view.')
            if view.get('finest_level', 0) < 0:
                raise ValueError(f'views[{v}]: finest_level must be at least 0, not '
                                 f'{view["finest_level"]}.')
        if num_proposals < 1 or max_tries < 1 or (tile is not None and tile < 1):
            raise ValueError('num_proposals, max_tries and the tile of ProposalViews must be at least '
                             f'1, not {num_proposals}, {max_tries} and {tile}.')
        self.views = [dict(view) for view in views]
        self.finest_levels = [view.get('finest_level', 0) for view in views]
        self.policy = PhotometricPolicy.of_views(
            [{key: value for key, value in view.items() if key not in GEOMETRY} for view in views])
        self.num_proposals = num_proposals
        self.jitter_prob = jitter_prob
        self.jitter_ratio = jitter_ratio
        self.flip_prob = flip_prob
        self.min_shared = min_shared
        self.max_tries = max_tries
        self.tile = tile

    def transform(self, results: dict) -> dict:
        """Add `views`, `bboxes`, `policy` and `finest_levels`."""
        windows, flips, results['bboxes'] = self.choose(results)
        results['views'] = [
            cut_view(results['img'], window, view['size'], flip, results['reduction'])
            for window, view, flip in zip(windows, self.views, flips)
        ]
        results.update(policy=self.policy, finest_levels=self.finest_levels)
        return results

    def choose(self, results: dict) -> tuple[list[Window], np.ndarray, np.ndarray]:
        """Draw the windows, flips (V,) and boxes (P, 2, K, 4) of the views without reading pixels."""
        row, rng = results['row'], results['rng']
        sides = None if self.tile is None else tuple(self.tile / factor for factor in results['zoom'])
        windows, picks = self._draw_windows(results['proposals'], row.width, row.height, rng, sides)
        bboxes = self._view_boxes(results['proposals'], windows, picks, rng)
        flips = rng.random(len(self.views)) < self.flip_prob
        for v, view in enumerate(self.views):
            if flips[v]:
                part = (slice(None), 0) if v == 0 else (v - 1, 1)
                bboxes[part] = flip_boxes(bboxes[part], view['size'])
        return windows, flips, bboxes

    def _draw_windows(self, proposals: np.ndarray, width: int, height: int,
                      rng: np.random.Generator, sides: tuple[float, float] | None = None
                      ) -> tuple[list[Window], list[np.ndarray]]:
        """Draw all windows and, for each pair, the K rows of `proposals` to compare.

        The windows are within the photo, or within a tile of it with these sides, in pixels of the
        photo. The rows of a pair that shares no proposal are empty.
        """
        wanted = self.min_shared
        frame = (0, 0, width, height)
        anchors = proposals if sides is None else proposals[overlaps(proposals, frame)]
        for _ in range(self.max_tries):
            if sides is not None:
                anchor = anchors[rng.integers(len(anchors))] if len(anchors) else None
                frame = sample_tile(width, height, sides, rng, anchor)
            windows: list[Window] = []
            for view in self.views:
                if 'same_window_as' in view:
                    windows.append(windows[view['same_window_as']])
                elif 'area' in view:
                    x, y, w, h = sample_window(*frame[2:], view['area'],
                                               view.get('ratio', (3 / 4, 4 / 3)), rng)
                    windows.append((frame[0] + x, frame[1] + y, w, h))
                else:
                    windows.append(frame)
            shown = [overlaps(proposals, w) if sides is None else
                     shares_inside(proposals, w) >= MIN_INSIDE for w in windows]
            shared = [np.flatnonzero(shown[0] & other) for other in shown[1:]]
            if all(len(rows) >= wanted for rows in shared):
                break
            wanted = max(wanted // 2, 1)
        picks: list[np.ndarray] = []
        for view, rows in zip(self.views[1:], shared):
            if view.get('same_window_as', 0) > 0:
                picks.append(picks[view['same_window_as'] - 1])
                continue
            chosen = rng.permutation(rows)[:self.num_proposals]
            if 0 < len(chosen) < self.num_proposals:
                repeats = rng.integers(0, len(chosen), self.num_proposals - len(chosen))
                chosen = np.concatenate([chosen, chosen[repeats]])
            picks.append(chosen)
        return windows, picks

    def _view_boxes(self, proposals: np.ndarray, windows: list[Window], picks: list[np.ndarray],
                    rng: np.random.Generator) -> np.ndarray:
        """Return each pair's proposals in pixels of its two views, (P, 2, K, 4)."""
        sizes = [(view['size'], view['size']) for view in self.views]
        bboxes = np.empty((len(picks), 2, self.num_proposals, 4), dtype=np.float32)
        for p, rows in enumerate(picks):
            shared = self.views[p + 1].get('same_window_as', 0)
            if len(rows) == 0:
                bboxes[p, 0] = (0, 0, *sizes[0])
                bboxes[p, 1] = (0, 0, *sizes[p + 1])
                continue
            boxes = proposals[rows]
            if shared > 0:
                bboxes[p, 0] = bboxes[shared - 1, 0]
            else:
                jittered = jitter_boxes(boxes, self.jitter_prob, self.jitter_ratio, rng)
                bboxes[p, 0] = to_view(jittered, windows[0], sizes[0])
            bboxes[p, 1] = to_view(boxes, windows[p + 1], sizes[p + 1])
        return bboxes


def cut_view(img: np.ndarray, window: Window, size: int, flip: bool,
             reduction: int = 1) -> np.ndarray:
    """Crop a window and resize it once, bilinear and antialiased (within 1 grey level of PIL).

    Args:
        img (np.ndarray): (H, W, 3) uint8.
        window (Window): `(x, y, w, h)` in pixels of the photo.
        size (int): Side of the square view in pixels.
        flip (bool): Whether to mirror the view horizontally.
        reduction (int): Width of a pixel of `img` in pixels of the photo; the window's edges are
            rounded to whole pixels of `img`. Defaults to 1.

    Returns:
        np.ndarray: (size, size, 3) uint8.
    """
    x, y, w, h = window
    if reduction > 1:
        x, y, right, bottom = (round(edge / reduction) for edge in (x, y, x + w, y + h))
        w, h = max(right - x, 1), max(bottom - y, 1)
    # The batch dimension is added before the permutation, because only then does torch recognise
    # channels_last and use its faster kernel.
    crop = torch.from_numpy(img[y:y + h, x:x + w])[None].permute(0, 3, 1, 2)
    view = F.interpolate(crop, (size, size), mode='bilinear', antialias=True)
    pixels = view[0].permute(1, 2, 0).numpy()
    return cv2.flip(pixels, 1) if flip else pixels


@TRANSFORMS.register_module()
class ProposalCutout(BaseTransform):
    """Draw squares inside boxes, which are erased after normalisation (official 100-epoch recipes).

    Required keys: `bboxes`, `views`, `rng`. Added key: `cutouts` ((V, K, 4) int16, x1 y1 x2 y2 in
    whole pixels of the view; an empty rectangle where nothing is erased).

    Args:
        prob (float): Probability that a box gets a square, within [0, 1]. Defaults to 0.5.
        area (tuple[float, float]): Lowest and highest share of the box's area. Defaults to (0.1, 0.3).
    """

    def __init__(self, prob: float = 0.5, area: tuple[float, float] = (0.1, 0.3)) -> None:
        self.prob = prob
        self.area = area

    def transform(self, results: dict) -> dict:
        """Add `cutouts`."""
        boxes, rng = results['bboxes'][:, 1], results['rng']  # (P, K, 4), without the first view
        size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
        share = rng.uniform(*self.area, size=boxes.shape[:2])
        side = np.sqrt(share * size.prod(axis=-1)).round().astype(int)
        centre = (boxes[..., :2] + rng.random(size.shape) * size).astype(int)
        chosen = rng.random(side.shape) < self.prob
        cutouts = np.zeros((len(results['views']), boxes.shape[1], 4), dtype=np.int16)
        for p, view in enumerate(results['views'][1:]):
            low = np.clip(centre[p] - side[p, :, None] // 2, 0, None)
            high = np.clip(centre[p] + side[p, :, None] // 2 + 1, None, view.shape[1::-1])
            cutouts[p + 1] = np.concatenate([low, high], axis=-1) * chosen[p, :, None]
        results['cutouts'] = cutouts
        return results


@TRANSFORMS.register_module()
class PackSoCoInputs(BaseTransform):
    """Convert a sample to tensors that `default_collate` can batch.

    Required keys: those that `ProposalViews` adds, and `rng`. Optional key: `cutouts` (from
    `ProposalCutout`). Output keys: `inputs` (list of V tensors (3, H_v, W_v) uint8), `bboxes`
    ((P, 2, K, 4) float32), `cutouts` ((V, K, 4) int16), `finest_levels` ((V,) int64), and `colours`
    (a dict of tensors (V, ...), see `PhotometricPolicy.colours`). The colours are drawn here, so that
    they depend on the sample only and not on the device, the rank or the batch.
    """

    def transform(self, results: dict) -> dict:
        """Return the tensors of the sample."""
        views, bboxes = results['views'], results['bboxes']
        cutouts = results.get('cutouts')
        if cutouts is None:
            cutouts = np.zeros((len(views), bboxes.shape[2], 4), dtype=np.int16)
        policy = results['policy']
        uniforms = results['rng'].random((len(views), policy.num_uniforms), dtype=np.float32)
        return dict(
            # cv2 separates the channels twice as fast as torch
            inputs=[torch.from_numpy(np.stack(cv2.split(v))) for v in views],
            bboxes=torch.from_numpy(bboxes),
            cutouts=torch.from_numpy(cutouts),
            finest_levels=torch.tensor(results['finest_levels']),
            colours={name: torch.from_numpy(values)
                     for name, values in policy.colours(uniforms).items()})
