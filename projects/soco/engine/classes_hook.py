"""A hook that checks that config, data, model and checkpoint have the same classes."""
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ..annotations.classes import SET_LIST, SUBSET, compare_lists
from ..annotations.copies import find_settled
from ..annotations.read import read_json
from ..launch.annotations import OTHER_JSONS, checkpoint_classes
from .runner_utils import unwrapped


@HOOKS.register_module()
class ClassesHook(Hook):
    """Stop before the first step when the classes of data, model or checkpoint do not fit together.

    MMDetection silently drops every object whose class it does not find, and numbers the classes in the
    order of the json. `tools/train.py` and `tools/test.py` have judged the annotations before; the log
    says what was mended. Runs that were started in another way are checked here.

    Raises:
        ValueError: If the annotation has other classes than the config or another order of them, or the
            heads or a checkpoint have others.
    """

    def before_run(self, runner: Runner) -> None:
        """Check the data set of each loop that this run has."""
        model, said = unwrapped(runner), set()
        for loop, dataset in _used(runner):
            settled = find_settled(runner.work_dir, dataset.ann_file) if getattr(
                dataset, 'ann_file', None) else None
            if settled is None:
                check_classes(dataset)
            else:
                copy = '' if settled.path == settled.source else f'{settled.source} as {settled.path}'
                for line in filter(None, [*settled.lines, copy and f'Reading {copy}']):
                    if line not in said:
                        runner.logger.info(line)
                    said.add(line)
            _check_heads(model, dataset)
            _name_classes_of_voc(loop, dataset)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the classes that a checkpoint remembers, unless a new training starts from it."""
        trained = checkpoint_classes(checkpoint)
        training = isinstance(runner._train_loop, BaseLoop)
        for _, dataset in _used(runner) if trained and (runner._resume or not training) else ():
            classes = dataset.metainfo.get('classes') or trained
            different = compare_lists(trained, classes, 'the checkpoint', 'the data')
            if different:
                raise ValueError(
                    f'{runner._load_from} was trained on other classes than those of '
                    f'{getattr(dataset, "ann_file", "the data")}. {different}. Use the list of classes '
                    'that it was trained with.')


def _used(runner: Runner) -> Iterator[tuple[BaseLoop, Any]]:
    """Yield each data set that reads files, with its loop."""
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        if isinstance(loop, BaseLoop):
            for dataset in _leaves(loop.dataloader.dataset):
                yield loop, dataset


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers."""
    inner = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', None)
    if inner is None:
        yield dataset
        return
    for part in inner:
        yield from _leaves(part)


def check_classes(dataset: Any) -> None:
    """Check that the classes of a built data set are the categories of its annotation, in its order.

    Args:
        dataset (Any): mmdet's `CocoDataset` or a similar one; others are not checked.

    Raises:
        ValueError: If a class has no category, a category with objects is not among the classes, or the
            order differs.
    """
    classes = dataset.metainfo.get('classes')
    found = getattr(dataset, 'cat_ids', None)
    if not classes or found is None or OTHER_JSONS & {kind.__name__ for kind in type(dataset).__mro__}:
        return
    content = read_json(dataset.ann_file)
    names = {row['id']: row.get('name') for row in content['categories']}
    labelled = [names.get(i) for i in found]
    lacking = [name for name in classes if name not in names.values()]
    if lacking:
        has = ', '.join(map(repr, list(names.values())[:5])) + (', …' if len(names) > 5 else '')
        raise ValueError(
            f'{len(lacking)} of the {len(classes)} classes of the config are not among the '
            f'{len(names)} categories of {dataset.ann_file}, such as {lacking[0]!r}. It has {has}. '
            f'{SET_LIST}')
    more = [names.get(i) for i in {row['category_id'] for row in content['annotations']} - set(found)]
    if more and not dataset.metainfo.get('subset'):
        raise ValueError(f'{dataset.ann_file} has objects of {len(more)} categories that are not among '
                         f'the classes of the config, such as {more[0]!r}. {SET_LIST} '
                         f'{SUBSET}')
    if labelled != list(classes):
        raise ValueError(
            f'The classes of the config have another order than the categories of '
            f'{dataset.ann_file}, and MMDetection numbers them in the order of the file. '
            f'{compare_lists(classes, labelled, "the config", "the file")}. Start the run with '
            'tools/train.py or tools/test.py, which put them in one order; or write the list in the '
            'order of the file.')


def _check_heads(model: Any, dataset: Any) -> None:
    classes = dataset.metainfo.get('classes') or ()
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        if (isinstance(number, int) and name and 'rpn' not in name and number != len(classes)
                and name.split('.')[0] != 'backbone'):  # where they are those of a classifier
            raise ValueError(
                f'{name} has num_classes={number}, but the data ({getattr(dataset, "ann_file", "")}) '
                f'has {len(classes)} classes. Set model.{name}.num_classes={len(classes)}.')


def _name_classes_of_voc(loop: BaseLoop, dataset: Any) -> None:
    """Let the table of AP show the data's own classes.

    MMDetection's metric prints PASCAL's names for every data set in a folder VOC2007 or VOC2012.
    """
    meta = dataset.metainfo
    evaluator = getattr(loop, 'evaluator', None)
    if evaluator is None or not meta.get('dataset_type'):
        return
    if tuple(meta['classes']) != tuple(type(dataset).METAINFO.get('classes') or ()):
        evaluator.dataset_meta = {**evaluator.dataset_meta, 'dataset_type': None}
