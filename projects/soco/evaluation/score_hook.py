"""A hook that scores held-out objects during training."""
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..engine.runner_utils import unwrapped
from .neighbours import draw_view_neighbours
from .objects import embed_objects, held_out_dataset, summarise


@HOOKS.register_module()
class ObjectScoreHook(Hook):
    """Score the target network on held-out photos, before training and every n epochs.

    The values of `evaluation.ObjectScore` are written to the visualizer's backends as scalars
    `objects/…`, and a picture of nearest neighbours as `neighbours`. Rank 0 computes them while the
    other ranks wait. Weights, BN statistics and random state of the training do not change.

    Args:
        images (str, optional): Folder of the held-out photos, or a zip or tar archive. Defaults to
            None: no scores.
        proposals (str, optional): Store of their proposals, made by `tools/generate_proposals.py`.
            Required with `images`. Defaults to None.
        interval (int): Epochs between scores. The last epoch is always scored. Defaults to 1.
        num_photos (int): Photos to use, evenly spread. Defaults to 64.
        repeats (int): Draws of views per photo. Defaults to 2.
        batch_size (int): Photos per batch, also for BN's statistics. Defaults to 8.
        features (str): 'projection' or 'object'; see `evaluation.objects.embed_objects`. Defaults to
            'projection'.
        num_queries (int): Objects in the picture; 0 for no picture. Defaults to 8.
        seed (int): Seed of the views. Defaults to 0.

    Raises:
        ValueError: If a number is too small, or only one of `images` and `proposals` is given.
    """

    def __init__(self, images: str | None = None, proposals: str | None = None,
                 interval: int = 1, num_photos: int = 64, repeats: int = 2, batch_size: int = 8,
                 features: str = 'projection', num_queries: int = 8, seed: int = 0) -> None:
        if min(interval, num_photos, repeats, batch_size) < 1 or num_queries < 0:
            raise ValueError('ObjectScoreHook: interval, num_photos, repeats and batch_size must be at '
                             f'least 1 and num_queries at least 0, not {interval}, {num_photos}, '
                             f'{repeats}, {batch_size} and {num_queries}.')
        if (images is None) != (proposals is None):
            raise ValueError('ObjectScoreHook: images and proposals must be given together, but '
                             f'{"images" if images is None else "proposals"} is not given. Make the '
                             'store of held-out photos with: python tools/generate_proposals.py IMAGES '
                             'OUT.arrow')
        self.images, self.proposals = images, proposals
        self.interval = interval
        self.num_queries = num_queries
        self.seed = seed
        self.options = dict(num_photos=num_photos, repeats=repeats, batch_size=batch_size,
                            features=features, seed=seed)
        self._dataset: object | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the photos, so that a problem with them ends the run at once, and score the start.

        Args:
            runner (Runner): The runner of the training.

        Raises:
            FileNotFoundError: If the photos or the store do not exist.
            ValueError: If the store belongs to other photos.
        """
        if self.images is None:
            return
        if is_main_process():
            self._dataset = held_out_dataset(runner.cfg, self.images, self.proposals)
        if runner.iter == 0:
            self._score(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Score after every `interval` epochs and after the last one."""
        if self.images is not None and (self.every_n_epochs(runner, self.interval)
                                        or self.is_last_train_epoch(runner)):
            self._score(runner)

    def _score(self, runner: Runner) -> None:
        if is_main_process():
            model = unwrapped(runner)
            found = embed_objects(model, self._dataset, **self.options)
            score = summarise(found)._asdict()
            values = {name: value for name, value in score.items() if value is not None}
            runner.visualizer.add_scalars({f'objects/{name}': value for name, value in values.items()},
                                          step=runner.iter)
            runner.logger.info(f'Held-out objects after {runner.iter} iterations: ' + '  '.join(
                f'{name}: {value:.4g}' for name, value in values.items()))
            if self.num_queries:
                picture = draw_view_neighbours(model, self._dataset, found[0], self.seed,
                                               self.num_queries)
                runner.visualizer.add_image('neighbours', picture, step=runner.iter)
        barrier()
