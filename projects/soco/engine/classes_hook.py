"""A hook that checks that config, data and model have the same classes."""
import json
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from .runner_utils import unwrapped


@HOOKS.register_module()
class ClassesHook(Hook):
    """Stop before the first step when the class list does not match the annotation or the model.

    MMDetection silently drops every object whose class it does not find.

    Raises:
        ValueError: If the annotation lacks a class of the list, or the heads have another number of
            classes.
    """

    def before_run(self, runner: Runner) -> None:
        """Check the data set of each loop that this run has."""
        model = unwrapped(runner)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                for dataset in _leaves(loop.dataloader.dataset):
                    check_classes(dataset)
                    _check_heads(model, dataset)


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers."""
    inner = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', None)
    if inner is None:
        yield dataset
        return
    for part in inner:
        yield from _leaves(part)


def check_classes(dataset: Any) -> None:
    """Check that each class of a built data set has a category in its annotation.

    Args:
        dataset (Any): mmdet's `CocoDataset` or a similar one; others are not checked.

    Raises:
        ValueError: If a class has no category in the annotation.
    """
    classes = dataset.metainfo.get('classes')
    if not classes:
        return
    found = getattr(dataset, 'cat_ids', None)
    if found is not None and len(found) < len(classes):
        with open(dataset.ann_file, encoding='utf-8') as file:
            categories = [category['name'] for category in json.load(file)['categories']]
        lacking = [name for name in classes if name not in categories]
        raise ValueError(
            f'{len(lacking)} of the {len(classes)} classes of the config are not among the '
            f'{len(categories)} categories of {dataset.ann_file}, such as {lacking[0]!r}. It has '
            f'{", ".join(map(repr, categories[:5]))}{", …" if len(categories) > 5 else ""}. Set '
            'metainfo=dict(classes=(...)) of the train, val and test data sets to its names, and '
            'num_classes of the heads to their number.')


def _check_heads(model: Any, dataset: Any) -> None:
    classes = dataset.metainfo.get('classes') or ()
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        if isinstance(number, int) and 'rpn' not in name and name and number != len(classes):
            raise ValueError(
                f'{name} has num_classes={number}, but the data ({getattr(dataset, "ann_file", "")}) '
                f'has {len(classes)} classes. Set model.{name}.num_classes={len(classes)}.')
