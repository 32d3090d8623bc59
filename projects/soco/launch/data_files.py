"""Checks that the files of a detection or classification data set exist."""
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mmengine.config import Config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
# Folders that a data set type reads below its data prefix although no config names them.
_IMPLIED = {
    'VOCDataset': ('Annotations', 'JPEGImages'),
    'LVISV1Dataset': ('train2017', 'val2017'),
}
_PACKAGES = {'LVISMetric': 'lvis', 'CityScapesMetric': 'cityscapesscripts'}
_WAYS_OUT = {
    'percent.json': 'Make the subset with: python tools/dataset_converters/coco_subset.py '
                    'data/coco/annotations/instances_train2017.json --percent 5',
    'instancesonly_filtered_gtFine': "Convert Cityscapes' annotations to COCO's format with "
                                     'tools/dataset_converters/cityscapes.py of MMDetection.',
}


def leaf_datasets(dataset: Any) -> Iterator[dict]:
    """Yield the config of every data set that reads files, also inside wrappers.

    Args:
        dataset (Any): Config of a data set, or of a wrapper such as `ConcatDataset` or `RepeatDataset`.

    Yields:
        dict: Config of a data set.
    """
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets')
    if inner is None:
        yield dataset
        return
    for part in inner:
        yield from leaf_datasets(part)


def expected_files(cfg: Config) -> list[str]:
    """List the paths that the loaders and evaluators of a config read.

    Args:
        cfg (Config): Config of a detector or classifier.

    Returns:
        list[str]: Sorted paths; those of folders end with a slash.
    """
    paths: set[str] = set()
    for dataset in _datasets(cfg):
        paths.update(_dataset_files(dataset))
    for evaluator in evaluators_of(cfg, *EVALUATORS):
        paths.update(f'{evaluator[key]}{slash}' for key, slash in
                     (('ann_file', ''), ('seg_prefix', '/')) if evaluator.get(key))
    return sorted({os.path.normpath(p) + ('/' if p.endswith('/') else '') for p in paths})


def _datasets(cfg: Config) -> Iterator[dict]:
    for name in LOADERS:
        if cfg.get(name):
            yield from leaf_datasets(cfg[name].dataset)


def evaluators_of(cfg: Config, *names: str) -> Iterator[dict]:
    """Yield the configs of evaluators.

    Args:
        cfg (Config): Config of a detector or classifier.
        *names (str): Keys of the config, some of `EVALUATORS`.

    Yields:
        dict: Config of an evaluator.
    """
    for name in names:
        evaluators = cfg.get(name) or []
        yield from [evaluators] if isinstance(evaluators, dict) else evaluators


def _dataset_files(dataset: dict) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    if dataset.get('ann_file'):
        yield os.path.join(root, dataset['ann_file'])
    prefix = dataset.get('data_prefix') or {}
    for part in [prefix] if isinstance(prefix, str) else prefix.values():
        folder = os.path.join(root, part or '')
        implied = _IMPLIED.get(dataset['type'].split('.')[-1])
        for name in implied or ('', ):
            yield os.path.join(folder, name, '')


def check_layout(cfg: Config) -> None:
    """Check that all files and folders of the data exist.

    Args:
        cfg (Config): Config of a detector or classifier.

    Raises:
        FileNotFoundError: If something is missing; the message shows the expected layout as a tree.
        ValueError: If the package of a metric is not installed, or a folder of photos to classify has
            no folders of classes.
    """
    for evaluator in evaluators_of(cfg, *EVALUATORS):
        package = _PACKAGES.get(evaluator['type'].split('.')[-1])
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(f'{evaluator["type"]} needs the package {package}: '
                             'pip install -r requirements/datasets.txt')
    paths = expected_files(cfg)
    missing = [path for path in paths if not os.path.exists(path)]
    if not missing:
        _check_class_folders(cfg)
        return
    hints = [hint for part, hint in _WAYS_OUT.items() if any(part in path for path in missing)]
    raise FileNotFoundError(
        f'{missing[0]} is missing. The config expects these files and folders:\n\n'
        f'{draw_tree(paths, set(missing))}\n\n'
        + ''.join(f'{hint}\n' for hint in hints)
        + 'Put or link the data there, or set data_root and ann_file of the datasets, and of the '
          'evaluators, in a config that inherits from this one.')


def _check_class_folders(cfg: Config) -> None:
    for dataset in _datasets(cfg):
        if dataset['type'].split('.')[-1] == 'ImageNet' and not dataset.get('ann_file'):
            folder = next(_dataset_files(dataset))
            if not any(entry.is_dir() for entry in Path(folder).iterdir()):
                raise ValueError(f'{folder} has no folder for each class, such as n01440764/. Sort '
                                 'its photos into such folders.')


def draw_tree(paths: list[str], missing: set[str]) -> str:
    """Draw paths as a tree, each followed by 'found' or 'missing'.

    Args:
        paths (list[str]): Files, and folders with a slash at the end.
        missing (set[str]): Those of them that do not exist.

    Returns:
        str: The tree, one line per file or folder.
    """
    nodes: dict[PurePosixPath, str] = {}
    for path in paths:
        pure = PurePosixPath(path)
        for parent in reversed(pure.parents):
            nodes.setdefault(parent, '')
        nodes[pure] = 'missing' if path in missing else 'found'
    top = PurePosixPath(os.path.commonpath([str(PurePosixPath(p).parent) for p in paths]))
    children: dict[PurePosixPath, list[PurePosixPath]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    rows = [(f'{top}/', '')]

    def walk(folder: PurePosixPath, indent: str) -> None:
        below = sorted(node for node in children.get(folder, []) if node != folder)
        for node in below:
            last = node == below[-1]
            is_folder = node in children or f'{node}/' in paths
            rows.append((f'{indent}{"└── " if last else "├── "}{node.name}{"/" if is_folder else ""}',
                         nodes[node]))
            walk(node, indent + ('    ' if last else '│   '))

    walk(top, '')
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:{width}}  {state}'.rstrip() for name, state in rows)
