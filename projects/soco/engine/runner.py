"""The Runner of the tools: its log begins with a summary, and the details go to a file of their own."""
import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner

from ..launch.data_files import leaf_datasets

DETAILS = 'details.txt'
EVALUATION_SECONDS = 7200  # our choice
# Messages of libraries that nobody can act on.
_NOISE = re.compile(r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|'
                    r'Dataset SoCoDataset has no metainfo|\S+ is skipped since its requires_grad=False')


class SummaryRunner(Runner):
    """mmengine's Runner with a log that begins with what a person wants to know.

    Environment, config, order of the hooks, initialisation and rate of each parameter are written to
    `details.txt` in the folder of the start (WORK_DIR/TIMESTAMP). Warnings are written to both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.ExitStack() as self._building:
            super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment, with what mmengine leaves out.

        Where a detector is evaluated, the first rank computes the metrics alone, for LVIS longer than
        the ten minutes after which NCCL ends the ranks that wait: `dist_cfg.timeout` is two hours by
        default. Deterministic algorithms of cuBLAS need an environment variable, before the first CUDA
        call.
        """
        evaluates = self.cfg.get('val_evaluator') or self.cfg.get('test_evaluator')
        defaults = dict(timeout=EVALUATION_SECONDS) if evaluates else {}
        if (self.cfg.get('randomness') or {}).get('deterministic'):
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        super().setup_env({**env_cfg, 'dist_cfg': {**defaults, **env_cfg.get('dist_cfg', {})}})

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, which writes to `details.txt` until the Runner is built."""
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(lambda record: not _NOISE.match(record.getMessage()))
        self._building.enter_context(_only_details(logger, self._details))
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model to its device and wrap it; SyncBN in pretraining does not wait for the device.

        On every rank, a pretraining batch has the same number of views of the same sizes, so that no
        layer's input is empty. A detector's may be.
        """
        if self.distributed and self.cfg.get('default_scope') == 'mmselfsup':
            from ..models.sync_bn import drop_empty_check  # detectors do not need the models
            drop_empty_check(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop with its data set, then log the summary of the training."""
        with self._quiet_libraries():
            loop = super().build_train_loop(loop)
        rows = dict(task=f'training, {self.cfg.filename or self.experiment_name}',
                    model=_describe_model(self.cfg, self.model),
                    data=_describe_data(self.cfg.train_dataloader.dataset, loop.dataloader.dataset),
                    validation=_describe_validation(self.cfg),
                    length=_describe_length(self.cfg, loop),
                    optimiser=_describe_optimiser(self.cfg),
                    weights=_describe_weights(self))
        self._log_summary(rows)
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop with its data set."""
        with self._quiet_libraries():
            return super().build_val_loop(loop)

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop with its data set, then log the summary of the evaluation."""
        with self._quiet_libraries():
            loop = super().build_test_loop(loop)
        self._log_summary(dict(
            task=f'evaluation, {self.cfg.filename or self.experiment_name}',
            model=_describe_model(self.cfg, self.model),
            data=_describe_data(self.cfg.test_dataloader.dataset, loop.dataloader.dataset),
            weights=_describe_weights(self)))
        return loop

    def build_optim_wrapper(self, *args: Any, **kwargs: Any) -> OptimWrapper:
        """Build the optimizer; MMEngine logs a line per parameter that has a rate of its own."""
        with _only_details(self.logger, self._details):
            return super().build_optim_wrapper(*args, **kwargs)

    def _init_model_weights(self) -> None:
        with _only_details(self.logger, self._details):
            super()._init_model_weights()

    @property
    def _details(self) -> Path:
        return Path(self._log_dir) / DETAILS

    @contextlib.contextmanager
    def _quiet_libraries(self) -> Iterator[None]:
        """Write what pycocotools prints for each json to the details; the logger is not affected."""
        path = self._details if is_main_process() else os.devnull
        with open(path, 'a', encoding='utf-8') as file, contextlib.redirect_stdout(file):
            yield

    def _log_summary(self, rows: dict[str, str]) -> None:
        rows.update(device=_describe_devices(), output=f'{self.work_dir} (config, checkpoints, log)',
                    details=f'{self._details} (environment, hooks, config)')
        self.logger.info('\n'.join(['summary', *(f'    {name:11}{text}' for name, text in rows.items()
                                                 if text)]))


@contextlib.contextmanager
def _only_details(logger: MMLogger, path: Path) -> Iterator[None]:
    """Write what is logged in the block to a file; only warnings reach the logger's other outputs."""
    if not is_main_process():
        yield
        return
    outputs, details = logger.handlers, logging.FileHandler(path, encoding='utf-8')
    details.setFormatter(logging.Formatter('%(asctime)s - %(levelname)s - %(message)s'))
    # The list is replaced because mmengine writes the initialisation to the files in it directly.
    logger.handlers = [details, _Warnings(outputs)]
    try:
        yield
    finally:
        logger.handlers = outputs
        details.close()


class _Warnings(logging.Handler):
    """Passes warnings and errors on to other handlers."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        super().__init__(logging.WARNING)
        self.handlers = handlers

    def emit(self, record: logging.LogRecord) -> None:
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def _describe_model(cfg: Config, model: torch.nn.Module) -> str:
    parts = [cfg.model.type]
    for name in ('backbone', 'neck'):
        found = cfg.model.get(name) or {}
        for part in found if isinstance(found, list) else [found]:
            kind = part.get('model_name') or part.get('type')
            parts += [f'{kind}-{part.depth}' if part.get('depth') else str(kind)] if kind else []
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (f'{", ".join(parts)}; {total / 1e6:.1f} million parameters, '
            f'{trained / 1e6:.1f} million with gradient')


def _describe_data(cfg: Config, dataset: Any) -> str:
    sources = []
    for part in leaf_datasets(cfg):
        root, prefix = part.get('data_root') or '', part.get('data_prefix') or {}
        folder = os.path.join(root, prefix if isinstance(prefix, str) else prefix.get('img') or '')
        named = ''
        if part.get('proposals'):
            named = f', proposals {part["proposals"]}'
        elif part.get('ann_file'):
            named = f', annotations {os.path.join(root, part["ann_file"])}'
        sources.append(f'{os.path.normpath(folder)}{named}')
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    images = len(dataset.store) if hasattr(dataset, 'store') else len(dataset)
    return (f'{images} images'
            + (f', each {len(dataset) // images} times per epoch' if images < len(dataset) else '')
            + (f', {len(classes)} classes' if len(classes) else '')
            + f': {"; ".join(dict.fromkeys(sources))}')


def _describe_validation(cfg: Config) -> str:
    if not cfg.get('val_dataloader'):
        return ''
    every = cfg.train_cfg.get('val_interval', 1)
    unit = 'iterations' if cfg.train_cfg.get('by_epoch') is False or 'max_iters' in cfg.train_cfg else \
        'epochs'
    files = [os.path.join(part.get('data_root') or '', part.get('ann_file') or '')
             for part in leaf_datasets(cfg.val_dataloader.dataset)]
    return f'every {every} {unit} on {", ".join(files)}'


def _describe_length(cfg: Config, loop: BaseLoop) -> str:
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch, processes = cfg.train_dataloader.get('batch_size'), get_world_size()
    epochs = '' if 'max_iters' in cfg.train_cfg else f'epochs: {loop.max_epochs}, '
    steps = f', optimizer steps: {loop.max_iters // counts}' if counts > 1 else ''
    total = '' if batch is None else (
        f', batch: {batch * processes * counts} ({batch} per process'
        + (f' × {processes} processes' if processes > 1 else '')
        + (f' × {counts} accumulated' if counts > 1 else '') + ')')
    return f'{epochs}iterations: {loop.max_iters}{steps}{total}'


def _describe_optimiser(cfg: Config) -> str:
    optimiser = cfg.optim_wrapper.get('optimizer') or {}
    keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    rates = ', '.join(f'times {found["lr_mult"]} in {key}' for key, found in keys.items()
                      if 'lr_mult' in found)
    return (f'{optimiser.get("type")}, learning rate {optimiser.get("lr")}'
            f'{f" ({rates})" if rates else ""}, '
            f'{cfg.optim_wrapper.get("type", "OptimWrapper")}')


def _describe_weights(runner: Runner) -> str:
    if runner._load_from:
        return f'{"resumed from" if runner._resume else "from"} {runner._load_from}'
    init = (runner.cfg.model.get('backbone') or {}).get('init_cfg')
    init = init if isinstance(init, dict) else {}
    return (f'backbone from {init["checkpoint"]}' if init.get('type') == 'Pretrained' else
            'random initialisation')


def _describe_devices() -> str:
    processes = get_world_size()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else \
        f'CPU, {torch.get_num_threads()} threads'
    return f'{name}, {processes} process{"es" if processes > 1 else ""}'
