"""A detector's config, fitted to other data, classes and length."""
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..annotations.masks import BOX_DETECTOR
from ..launch.configs import RUNNER_KEYS, dicts_in, drop_weights, imports_of, schedulers_of
from ..launch.data_files import evaluators_of, leaf_datasets
from .read import arguments_of, lift, train_norms, typed

_MIXED = 'MultiImageMixDataset'  # its transforms take several samples, so it stays around the data set
# Hooks that change pipeline or loss in a late epoch; an iteration loop is in its first and last one.
SWITCHES = ('YOLOXModeSwitchHook', 'PipelineSwitchHook')
HOOKS: dict[str, dict] = dict(
    checkpoint=dict(type='PlainCheckpointHook', by_epoch=False, max_keep_ckpts=1),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    # Whatever the config requires: starts differ, and ImageNet's weights have a backbone alone.
    pretrained=dict(type='PretrainedWeightsHook', require=None),
    classes=dict(type='ClassesHook'),
    resume=dict(type='ResumeHook'),
    finite_loss=dict(type='FiniteLossHook'),
    stop_signal=dict(type='StopSignalHook'),
    predictions=dict(type='KeepPredictionsHook'),
    channels_last=dict(type='ChannelsLastHook'))


def fit_detector(detector: Config, images: Path, train: Path, val: Path, classes: Sequence[str],
                 masks: bool, photos: int, iters: int | None = None, points: int = 4
                 ) -> tuple[Config, list[str]]:
    """Fit a detector to annotations: data, classes, length in iterations, schedule and hooks.

    Model, augmentations, optimiser and batch size stay those of the config.

    Args:
        detector (Config): Config of a detector.
        images (Path): Folder of the photos.
        train (Path): COCO json to train on.
        val (Path): COCO json to evaluate on.
        classes (Sequence[str]): Names of the classes.
        masks (bool): Whether the annotations have masks.
        photos (int): Photos of train, to convert epochs to iterations.
        iters (int, optional): Iterations of the whole schedule. Defaults to None: those of the config.
        points (int): Validations along the schedule. Defaults to 4.

    Returns:
        tuple[Config, list[str]]: The config, and a line about each setting that was changed beyond
        data and classes.

    Raises:
        ValueError: If the config is no detector, needs masks that the annotations lack, or something
            else that they cannot have.
    """
    # Without the variables that a config leaves behind, such as the path of COCO.
    cfg, notes = Config({key: value for key, value in detector._cfg_dict.to_dict().items()
                         if key in {*RUNNER_KEYS, 'custom_imports'}}), []
    for key in ('model', 'train_dataloader', 'val_dataloader', 'train_cfg', 'optim_wrapper'):
        if key not in cfg or cfg[key] is None:
            raise ValueError(f'The config has no {key}: it is not one that trains a detector.')
    if cfg.model.type.split('.')[-1] == 'RPN' and len(classes) > 1:
        raise ValueError(f'The detector is an RPN, which tells no classes apart, and {train} has '
                         f'{len(classes)}. Use a detector with a head for classes, such as '
                         f'{BOX_DETECTOR}')
    if not cfg.train_dataloader.get('batch_size'):
        raise ValueError('The config has no train_dataloader.batch_size, the photos of an iteration.')
    with_masks = needs_masks(cfg)
    if with_masks and not masks:
        raise ValueError(f'The detector needs masks, and some objects of {train} or {val} have none. '
                         f'Use a detector for boxes, such as {BOX_DETECTOR}')
    batch, times = cfg.train_dataloader.batch_size, repetitions(cfg.train_dataloader.dataset)
    epoch = -(-photos * times // batch)
    before = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * epoch
    total = iters or before
    cfg.param_scheduler = list(as_shares(cfg, before, epoch))
    cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=total,
                         val_interval=-(-total // points))
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    notes.append(f'{total} iterations of {batch} photos, whatever the share of the labels')
    if any(str(node.get('type')).endswith('ClassBalancedDataset')
           for node in dicts_in(cfg.train_dataloader.dataset)):
        notes.append('ClassBalancedDataset is left out: all photos are seen equally often')
    sampler = str(cfg.train_dataloader.get('sampler', {}).get('type', 'DefaultSampler'))
    if not sampler.endswith(('DefaultSampler', 'InfiniteSampler')):
        notes.append(f'{sampler} is left out: all photos are seen equally often')
    _set_data(cfg, images, train, val, list(classes), masks=with_masks)
    set_classes(cfg.model, len(classes))
    for node in dicts_in(cfg.model):
        drop_weights(node)  # they come from the starts alone
    notes += _set_runtime(cfg)
    return cfg, notes


def repetitions(dataset: Mapping) -> int:
    """Return how often an epoch of a data set's config shows each photo (mmdet's RepeatDataset)."""
    times = dataset.get('times', 1) if str(dataset.get('type')).endswith('RepeatDataset') else 1
    inner = dataset.get('dataset')
    return times * (repetitions(inner) if isinstance(inner, Mapping) else 1)


def needs_masks(cfg: Config) -> bool:
    """Return whether a detector is trained with the masks of its objects.

    Args:
        cfg (Config): Config of a detector.

    Raises:
        ValueError: If it needs a map of classes for every pixel.
    """
    if any(node.get('with_seg') or 'Panoptic' in str(node.get('type', ''))
           for node in dicts_in(cfg.get('train_dataloader'))):
        raise ValueError('The detector is trained with a map of classes for every pixel (with_seg or '
                         'LoadPanopticAnnotations in its pipeline), which annotations of objects do '
                         f'not have. Use another detector, such as {BOX_DETECTOR}')
    heads = [node['mask_head'] for node in dicts_in(cfg.model) if 'mask_head' in node]
    if heads or 'roi_head' in cfg.model:
        return any(heads)
    # RTMDet-Ins and Mask2Former, for example, have no head of this name; `metric` is a text or a list
    return any('segm' in evaluator.get('metric', ()) for evaluator in
               evaluators_of(cfg, 'val_evaluator'))


def set_classes(model: dict, count: int) -> None:
    """Set the number of classes in all heads of a detector, also where they have it by default.

    Args:
        model (dict): Config of the detector; it is changed in place.
        count (int): Number of classes.
    """
    # A backbone's classes are those of a classifier, and an RPN has one class.
    for key, part in model.items():
        for node in dicts_in(part) if key not in ('backbone', 'rpn_head') else ():
            if 'num_things_classes' in node:
                _set_things(node, count)
            if 'num_classes' in node or (node.get('type')
                                         and 'num_classes' in arguments_of(node['type'])):
                node['num_classes'] = count


def _set_things(node: dict, count: int) -> None:
    """Set the classes of a head after MaskFormer, whose loss has a weight for each and for none."""
    node.update(num_things_classes=count, num_stuff_classes=0)
    loss = node.get('loss_cls') or {}
    if isinstance(weights := loss.get('class_weight'), (list, tuple)):
        loss['class_weight'] = [weights[0]] * count + [weights[-1]]


def thaw(cfg: Config) -> list[str]:
    """Let a detector without weights train all its layers; return a line about each change."""
    told = []
    for part in typed(cfg.model.get('backbone', {})):
        told += [f'backbone.{key} is {part[key]} for the random start, not {was}: random layers must '
                 'be trained' for key, was in lift(part, ('frozen_stages', 'norm_eval'))]
    if train_norms(cfg.model):
        told.append('norms with requires_grad=False have True for the random start: they must be '
                    'trained')
    return told


def as_shares(cfg: Config, iters: int, epoch_length: int) -> Iterator[dict]:
    """Yield the schedules of a config as shares of its run, so that they follow another length.

    Args:
        cfg (Config): The config.
        iters (int): Iterations of its run.
        epoch_length (int): Iterations per epoch.

    Yields:
        dict: `WarmupLR`, `CosineLR` or `StepsLR` (`engine/schedules.py`).

    Raises:
        ValueError: If a schedule is of another kind.
    """
    for scheduler in schedulers_of(cfg):
        kind = str(scheduler['type']).split('.')[-1]
        if kind in ('WarmupLR', 'CosineLR', 'StepsLR'):
            yield dict(scheduler)
            continue
        unit = epoch_length if scheduler.get('by_epoch', True) else 1

        def share(value: float, unit: int = unit) -> float:
            return min(value * unit / iters, 1.0)

        if kind in ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR') and not scheduler.get('begin'):
            yield dict(type='WarmupLR', by_epoch=False, share=min(share(scheduler['end']), 0.1),
                       start_factor=scheduler.get('start_factor', scheduler.get('factor', 0.01)))
        elif kind == 'MultiStepLR':
            shares = [share(step) for step in scheduler['milestones']]
            yield dict(type='StepsLR', by_epoch=False, gamma=scheduler.get('gamma', 0.1),
                       shares=[value for value in shares if value < 1])
        elif kind == 'CosineAnnealingLR':
            options = {key: scheduler[key] for key in ('eta_min', 'eta_min_ratio') if key in scheduler}
            first = scheduler.get('begin', 0)
            begin = min(share(first), 0.9)
            until = share(scheduler.get('end') or first + (scheduler.get('T_max') or math.inf))
            if until < 1:
                options['until'] = max(until, begin + 0.01)
            yield dict(type='CosineLR', by_epoch=False, begin=begin, **options)
        elif not (kind == 'ConstantLR' and scheduler.get('factor') == 1):
            raise ValueError(f'The schedule {scheduler["type"]} cannot be converted to another length. '
                             'Use a config with MultiStepLR or CosineAnnealingLR (and a warm-up).')


def _set_data(cfg: Config, images: Path, train: Path, val: Path, classes: list[str], masks: bool
              ) -> None:
    for split, path in (('train', train), ('val', val)):
        loader = cfg[f'{split}_dataloader']
        pipelines = [leaf.get('pipeline') for leaf in leaf_datasets(loader.dataset)]
        if not pipelines[0] or any(pipeline != pipelines[0] for pipeline in pipelines[1:]):
            why = 'has parts with different pipelines' if pipelines[0] else 'has no pipeline'
            raise ValueError(f'{split}_dataloader.dataset {why}, and one set of photos takes its '
                             'place. Give the config one data set with a pipeline.')
        dataset: dict = dict(type='CocoDataset', ann_file=str(path), pipeline=pipelines[0],
                             data_prefix=dict(img=f'{images}/'), metainfo=dict(classes=classes))
        if split == 'train':
            dataset['filter_cfg'] = dict(filter_empty_gt=True)
            loader.sampler = dict(type='InfiniteSampler', shuffle=True)
        else:
            dataset['test_mode'] = True
        mixed = next((node for node in dicts_in(loader.dataset)
                      if str(node.get('type')).split('.')[-1] == _MIXED), None)
        loader.dataset = dataset if mixed is None else {**mixed, 'dataset': dataset}
        for node in dicts_in(loader.dataset):
            if str(node.get('type', '')).split('.')[-1] == 'LoadAnnotations' and not masks:
                node['with_mask'] = False
        loader.persistent_workers = bool(loader.get('num_workers'))
    metric = ['bbox', 'segm'] if masks else ['bbox']
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(val), metric=metric, format_only=False)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator


def _set_runtime(cfg: Config) -> list[str]:
    notes = []
    cfg.default_scope = cfg.get('default_scope') or 'mmdet'
    cfg.custom_imports = dict(
        imports=list(dict.fromkeys([*imports_of(cfg), 'projects.soco.engine'])),
        allow_failed_imports=False)
    hooks = dict(cfg.get('default_hooks') or {})
    for name, hook in HOOKS.items():
        hooks[name] = {**(hooks.get(name) or {}), **hook}
    hooks['checkpoint']['interval'] = cfg.train_cfg.val_interval
    hooks['checkpoint'].pop('save_best', None)
    cfg.default_hooks = hooks
    cfg.log_processor = dict(type='LogProcessor', window_size=10, by_epoch=False)
    kept = []
    for hook in cfg.get('custom_hooks') or []:
        if str(hook.get('type')).split('.')[-1] in SWITCHES:
            notes.append(f'{hook["type"]} is left out, since it counts in epochs: augmentations and '
                         'losses of the beginning stay to the end, for all starts')
        else:
            notes.append(f'{hook.get("type")} stays, but what it counts in epochs has no effect')
            kept.append(hook)
    if cfg.get('custom_hooks'):
        cfg.custom_hooks = kept
    scaling = cfg.get('auto_scale_lr') or {}
    if scaling.get('base_batch_size'):
        cfg.auto_scale_lr = dict(enable=True, base_batch_size=scaling['base_batch_size'])
        notes.append(f'the learning rate is scaled from a batch of {scaling["base_batch_size"]}')
    cfg.load_from, cfg.resume = None, False
    cfg.setdefault('randomness', ConfigDict(seed=0))
    return notes
