"""A hook that reports photos that cannot be used, and limits their number."""
import csv
import json
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_world_size, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import distributed

from ..datasets.dataset import WAYS_OUT, BadPhoto
from ..files import whole_file
from .runner_utils import cpu_group

TABLE = 'bad_images.csv'  # in the work directory; its columns are the fields of BadPhoto
SHOWN = 3


@HOOKS.register_module()
class BadImageHook(Hook):
    """Report photos that cannot be used, and stop training when there are too many.

    `SoCoDataset` replaces such a photo by another one if its `max_bad_share` allows it, and records
    this in the batch. Each bad photo is logged once and listed in WORK_DIR/bad_images.csv with the
    reason and its first replacement. Training stops when more than `max_bad_share` of the data set's
    photos were bad since the start of training. Resumed runs extend the table.

    Args:
        interval (int): Iterations between two exchanges between processes; a single process reports in
            every iteration. Defaults to 50.
    """

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'BadImageHook: interval must be at least 1, not {interval}.')
        self.interval = interval
        self._listed: dict[str, BadPhoto] = {}
        self._found: dict[str, BadPhoto] = {}  # since the start of training, on all ranks
        self._untold: dict[str, BadPhoto] = {}  # of this rank, not reported yet
        self._group: distributed.ProcessGroup | None = None

    def before_train(self, runner: Runner) -> None:
        """Read the table of a run that is resumed."""
        self._table = Path(runner.work_dir) / TABLE
        if is_distributed():
            self._group = cpu_group()
        if runner._resume and self._table.is_file():
            with open(self._table, newline='', encoding='utf-8') as file:
                rows = [BadPhoto(*row) for row in csv.reader(file) if len(row) == 3]
            self._listed = {photo.image: photo for photo in rows[1:]}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Collect the bad photos of a batch, and report them when an exchange is due.

        Raises:
            ValueError: If more photos are bad than `max_bad_share` allows.
        """
        for text in filter(None, data_batch.get('bad', ())):
            for photo in (BadPhoto(*row) for row in json.loads(text)):
                if photo.image not in self._found:
                    self._untold[photo.image] = photo
        if get_world_size() == 1 or self.every_n_train_iters(runner, self.interval):
            self._report(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the remaining bad photos."""
        self._report(runner)

    def after_train(self, runner: Runner) -> None:
        """Log the number of bad photos."""
        total = len(runner.train_dataloader.dataset.store)
        where = f', listed in {self._table}' if self._listed else ''
        runner.logger.info(f'Photos that could not be used: {len(self._found)} of {total}{where}.')

    def _report(self, runner: Runner) -> None:
        if get_world_size() == 1:
            new = self._untold
        else:
            new = {}
            for photos in all_gather_object(self._untold, self._group):
                new = {**photos, **new}
        self._untold = {}
        new = {image: photo for image, photo in new.items() if image not in self._found}
        if not new:
            return
        self._found.update(new)
        self._listed = {**new, **self._listed}
        if is_main_process():
            for photo in new.values():
                runner.logger.warning(f'{photo.image} cannot be used: {photo.reason}. '
                                      f'{photo.replaced_by} is used instead.')
            with whole_file(self._table) as file:
                writer = csv.writer(file)
                writer.writerow(BadPhoto._fields)
                writer.writerows(photo for _, photo in sorted(self._listed.items()))
        dataset = runner.train_dataloader.dataset
        if len(self._found) > dataset.max_bad_share * len(dataset.store):
            first = '; '.join(f'{photo.image}: {photo.reason}'
                              for photo in list(self._found.values())[:SHOWN])
            raise ValueError(
                f'{len(self._found)} of {len(dataset.store)} photos cannot be used, more than the '
                f'share of {dataset.max_bad_share:g} that max_bad_share allows. The first: {first}. '
                f'All are in {self._table}. {WAYS_OUT} Then resume with --resume.')
