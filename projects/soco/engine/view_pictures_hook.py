"""Pictures of what the model sees: views after augmentation, with their matched boxes."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import default_collate

from ..datasets.dataset import SampleKey, SoCoDataset
from ..pictures.canvas import join_pictures
from ..pictures.photos import draw_views
from .runner_utils import unwrapped


class ViewDrawer:
    """Draw samples as the model gets them: photo with proposals, views with boxes and their levels.

    Args:
        dataset (SoCoDataset): Data set whose first transform is `LoadProposals`.
        preprocessor (nn.Module): A `SoCoDataPreprocessor`.
        levels_of (Callable): Maps boxes (P, 2, K, 4) and the finest level of each view to the level
            (P, 2, K) of each box, or to None without a pyramid, such as `SoCo.box_levels`.
        level_names (Sequence[str]): Names of the levels, finest first.
    """

    def __init__(self, dataset: SoCoDataset, preprocessor: nn.Module,
                 levels_of: Callable[[Tensor, Sequence[int]], Tensor | None],
                 level_names: Sequence[str]) -> None:
        self.dataset = dataset
        self.preprocessor = preprocessor
        self.levels_of = levels_of
        self.level_names = level_names

    @classmethod
    def from_config(cls, cfg: Config) -> ViewDrawer:
        """Build a drawer for the samples of a pretraining config, without its network.

        Args:
            cfg (Config): A pretraining config.

        Returns:
            ViewDrawer: The drawer.

        Raises:
            FileNotFoundError: If its photos or proposals do not exist.
            ValueError: If it is not a pretraining config, or its proposals are for other photos.
        """
        # Imported here: detectors import this package too, and do not need the models.
        from ..models.roi_heads import level_name
        from ..models.soco import assign_levels
        loader = cfg.get('train_dataloader') or {}
        if not str(loader.get('dataset', {}).get('type')).endswith('SoCoDataset'):
            raise ValueError(f'{cfg.filename} does not pretrain with SoCo (train_dataloader.dataset is '
                             'not a SoCoDataset), so it has no views. Use a config such as '
                             'configs/soco_r50_fpn_400e.py.')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset = DATASETS.build(loader.dataset)
            preprocessor = MODELS.build(cfg.model.data_preprocessor)
            extractor = MODELS.build(cfg.model.roi_head.bbox_roi_extractor)
        levels_of = (partial(assign_levels, extractor) if cfg.model.get('neck') else
                     lambda bboxes, finest_levels: None)
        return cls(dataset, preprocessor, levels_of, list(map(level_name, extractor.featmap_strides)))

    def photo(self, key: SampleKey) -> tuple[np.ndarray, np.ndarray]:
        """Return a sample's photo, uint8, RGB, (H, W, 3), and its proposals in pixels, (n, 4)."""
        start = self.dataset.pipeline.transforms[0](self.dataset.read(key))
        return start['img'][..., ::-1], start['proposals'] / start['reduction']

    def draw(self, key: SampleKey) -> np.ndarray:
        """Load a sample and return its picture, uint8, RGB, (H, W, 3)."""
        return self.draw_prepared([key], self.preprocessor(default_collate([self.dataset[key]]), True))

    def draw_prepared(self, keys: Sequence[SampleKey], prepared: dict) -> np.ndarray:
        """Draw the first samples of a prepared batch, one below the other.

        Args:
            keys (Sequence[SampleKey]): Keys of these samples.
            prepared (dict): Output of the preprocessor for the batch: `inputs`, `bboxes` and
                `finest_levels`.

        Returns:
            np.ndarray: uint8, RGB, (H, W, 3).
        """
        views = [self.preprocessor.to_pixels(view[:len(keys)]).cpu().numpy()
                 for view in prepared['inputs']]
        pictures = []
        for i, key in enumerate(keys):
            bboxes = prepared['bboxes'][i]
            levels = self.levels_of(bboxes, prepared['finest_levels'])
            pictures.append(draw_views(
                *self.photo(key), [view[i] for view in views], bboxes.numpy(),
                None if levels is None else levels.numpy(), self.level_names,
                self.dataset.image_name(key)))
        return join_pictures(pictures, axis=0)


@HOOKS.register_module()
class ViewPicturesHook(Hook):
    """Draw what the model saw in an iteration, every `interval` iterations.

    The picture `views` goes to all backends of the visualizer, on the main process only;
    `LocalVisBackend` writes it to `vis_data/vis_image/views_{iterations done}.png`. The pictures are
    made from the same tensors that the model got, without random numbers, so training is bit-identical
    with and without the hook. In all other iterations the hook does nothing.

    Args:
        interval (int): Iterations between two pictures; 0 for none. Defaults to 5000.
        num (int): Samples of the batch to draw, at most all. Defaults to 2.

    Raises:
        ValueError: If an argument is too small.
    """

    priority = 'ABOVE_NORMAL'  # before the timer, which would count drawing as waiting for data

    def __init__(self, interval: int = 5000, num: int = 2) -> None:
        if interval < 0 or num < 1:
            raise ValueError('ViewPicturesHook: interval must be at least 0 (never) and num at least '
                             f'1, not {interval} and {num}.')
        self.interval = interval
        self.num = num
        self._seen: list[dict] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Keep the preprocessor's output for this batch, if a picture is due."""
        if not is_main_process() or not self.every_n_train_iters(runner, self.interval):
            return
        self._handle = unwrapped(runner).data_preprocessor.register_forward_hook(
            lambda module, args, prepared: self._seen.append(prepared))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Draw the output that was kept."""
        if not self._seen:
            return
        self._handle.remove()
        prepared = self._seen.pop()
        model, loader = unwrapped(runner), runner.train_dataloader
        drawer = ViewDrawer(loader.dataset, model.data_preprocessor, model.box_levels,
                            model.level_names)
        try:
            picture = drawer.draw_prepared(loader.batch_sampler.keys_of(batch_idx)[:self.num], prepared)
        except (OSError, ValueError) as error:  # an unreadable photo must not end the run
            runner.logger.warning(f'No picture of the views after iteration {runner.iter + 1}: {error}')
            return
        runner.visualizer.add_image('views', picture, step=runner.iter + 1)
