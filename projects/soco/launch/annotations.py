"""The annotations that a config names: judged before the start, and mended copies in their place."""
import ast
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..annotations.classes import class_list, compare_lists
from ..annotations.copies import FOLDER, Use, settle
from ..annotations.read import read_lines
from ..annotations.voc import judge_voc, write_list
from .configs import dicts_in, is_first_process
from .data_files import EVALUATORS, evaluators_of, leaf_datasets

# Subclasses of CocoDataset whose json is not one of COCO's instances.
OTHER_JSONS = {'LVISV05Dataset', 'LVISV1Dataset', 'CocoPanopticDataset'}
_XML = ('VOCDataset', 'XMLDataset')
TRAINING, TESTING = ('train_dataloader', 'val_dataloader'), ('test_dataloader', )


def settle_annotations(cfg: Config, loaders: tuple[str, ...] = TRAINING,
                       report: Callable[[str], Any] = print) -> None:
    """Judge the annotations of a config's data sets, and set its `ann_file`s to mended copies.

    The copies are in `annotations/` of the work directory. Training and evaluation read the same ones.

    Args:
        cfg (Config): Config of a detector; it is changed in place. Its `work_dir` is
            `work_dirs/<name of the config>` if it has none.
        loaders (tuple[str, ...]): The loaders that the run uses. Defaults to those of training.
        report (Callable[[str], Any]): Called with each line of what was mended. Defaults to `print`.

    Raises:
        ValueError: If something is refused; the message has file, entry and what to do.
        NotWrittenError: If a copy cannot be written.
    """
    work_dir = cfg.get('work_dir') or f'work_dirs/{Path(cfg.filename or "run").stem}'
    said: set[str] = set()

    def say(lines: list[str]) -> None:
        for line in lines:
            if line not in said and is_first_process():
                report(line)
            said.add(line)

    for loader in loaders:
        if not cfg.get(loader):
            continue
        name = loader.replace('dataloader', 'evaluator')
        evaluators = list(evaluators_of(cfg, name)) if name in EVALUATORS else []
        masks = _needs_masks(cfg[loader].dataset) or any(
            'segm' in (e.get('metric') or ()) for e in evaluators if _kind(e) == 'CocoMetric')
        datasets = list(leaf_datasets(cfg[loader].dataset))
        read: dict[str, str] = {}
        for dataset in datasets:
            if _kind(dataset) in _XML:
                say(_settle_voc(dataset, work_dir))
            elif _is_coco(dataset):
                read.update(_settle_coco(dataset, work_dir, masks, loader == TRAINING[0], say))
        _settle_evaluators(evaluators, read, name, loader)


def _kind(cfg: Any) -> str:
    return str(cfg.get('type')).split('.')[-1].rstrip("'>")


def _is_coco(dataset: dict) -> bool:
    kinds = {kind for kind, _ in library_classes(_kind(dataset))}
    return ('CocoDataset' in kinds and not kinds & OTHER_JSONS and not dataset.get('backend_args')
            and os.path.isfile(_joined(dataset, str(dataset.get('ann_file')))))


@functools.cache
def library_classes(kind: str) -> list[tuple[str, tuple[str, ...] | None]]:
    """Look up a data set type in MMDetection's source, which is quicker than importing it.

    Args:
        kind (str): Name of the type.

    Returns:
        list[tuple[str, tuple[str, ...] | None]]: Its name and those of its base classes, each with the
        classes of its METAINFO, or None. Empty if MMDetection has no such type.
    """
    folder = importlib.util.find_spec('mmdet').submodule_search_locations[0]
    for file in sorted(Path(folder, 'datasets').glob('*.py')):
        text = file.read_text(encoding='utf-8')
        if f'class {kind}(' not in text:
            continue
        node = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == kind)
        values = [n.value for n in node.body if isinstance(n, ast.Assign)
                  and any(isinstance(t, ast.Name) and t.id == 'METAINFO' for t in n.targets)]
        found = [value for meta in values if isinstance(meta, ast.Dict)
                 for key, value in zip(meta.keys, meta.values)
                 if isinstance(key, ast.Constant) and key.value == 'classes']
        own = tuple(ast.literal_eval(found[0])) if found else None
        return [(kind, own), *(pair for base in node.bases if isinstance(base, ast.Name)
                               for pair in library_classes(base.id))]
    return []


def _joined(dataset: dict, path: str) -> str:
    return os.path.join(dataset.get('data_root') or '', path)


def _needs_masks(node: Any) -> bool:
    """Whether a pipeline of a data set, or of a wrapper, loads masks."""
    return any(_kind(part).startswith('LoadAnnotations') and part.get('with_mask')
               for part in dicts_in(node))


def config_classes(dataset: dict) -> tuple[str, ...] | None:
    """Return the classes of a data set's config: its own, or those of its type; None if it has none.

    Args:
        dataset (dict): Config of a data set that reads files.

    Returns:
        tuple[str, ...] | None: The names in order.

    Raises:
        ValueError: If the list is none, or has a name twice.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and os.path.isfile(classes):
        classes = read_lines(classes)
    if classes is None:
        classes = next((c for _, c in library_classes(_kind(dataset)) if c is not None), None)
    return None if classes is None else class_list(classes)


def _subset(dataset: dict) -> bool:
    return bool((dataset.get('metainfo') or {}).get('subset'))


def _settle_coco(dataset: dict, work_dir: str, masks: bool, training: bool,
                 say: Callable[[list[str]], None]) -> Iterator[tuple[str, str]]:
    """Set a data set's file; yield the path of the file that was given and of the one to read."""
    source = _joined(dataset, dataset['ann_file'])
    prefix = dataset.get('data_prefix') or {}
    photos = prefix if isinstance(prefix, str) else prefix.get('img', prefix.get('img_path', ''))
    settled = settle(source, Use(_joined(dataset, photos or ''), config_classes(dataset),
                                 _subset(dataset), masks, training),
                     work_dir, lambda text: say([text]))
    say(settled.lines)
    if settled.path != settled.source:
        say([f'{source} is read as {settled.path}'])
        dataset['ann_file'] = settled.path
    yield settled.source, settled.path


def _settle_voc(dataset: dict, work_dir: str) -> list[str]:
    prefix = dataset.get('data_prefix') or {}
    root = _joined(dataset, prefix.get('sub_data_root', ''))
    judged = judge_voc(
        _joined(dataset, dataset['ann_file']),
        os.path.join(root, dataset.get('ann_subdir', 'Annotations')),
        os.path.join(root, dataset.get('img_subdir', 'JPEGImages')),
        config_classes(dataset) or (), _subset(dataset)).accept()
    if judged.mended:
        dataset['ann_file'] = write_list(judged, Path(work_dir) / FOLDER)
    return judged.lines()


def _settle_evaluators(evaluators: list[dict], read: dict[str, str], name: str, loader: str) -> None:
    """Let evaluators read the file that their data set reads."""
    for evaluator in evaluators:
        path = evaluator.get('ann_file')
        if not path or _kind(evaluator) != 'CocoMetric' or not read:
            continue
        if os.path.abspath(path) in read:
            evaluator['ann_file'] = read[os.path.abspath(path)]
        elif len(read) == 1:
            given = next(iter(read))
            raise ValueError(f'{name}.ann_file is {path}, but {loader} reads {given}. Both must be the '
                             f'same file: set {name}.ann_file={given}')


def follow_checkpoint(cfg: Config, checkpoint: dict, path: str, loaders: tuple[str, ...] = TESTING,
                      report: Callable[[str], Any] = print) -> None:
    """Give data sets the order of classes that a checkpoint was trained with.

    Args:
        cfg (Config): Config of a detector; its lists of classes are changed in place.
        checkpoint (dict): The checkpoint; one that does not remember its classes is accepted.
        path (str): Its file, for messages.
        loaders (tuple[str, ...]): The loaders whose data sets are changed. Defaults to that of tests.
        report (Callable[[str], Any]): Called with a line if an order was changed. Defaults to `print`.

    Raises:
        ValueError: If the names differ.
    """
    trained = checkpoint_classes(checkpoint)
    for loader in loaders if trained else ():
        for dataset in leaf_datasets(cfg[loader].dataset) if cfg.get(loader) else ():
            classes = config_classes(dataset)
            if classes is None or classes == trained:
                continue
            new = [name for name in classes if name not in trained]
            if new or (len(classes) < len(trained) and not _subset(dataset)):
                raise ValueError(
                    f'{path} was trained on {len(trained)} classes, and the data set of {loader} has '
                    f'{len(classes)}. {compare_lists(trained, classes, "the checkpoint", "the data")}. '
                    'Test it on data with its classes, or with the config that it was trained with. '
                    'Data with a part of its classes need metainfo=dict(classes=(...), subset=True).')
            dataset.setdefault('metainfo', {})['classes'] = trained
            if is_first_process():
                report(f'{loader}: the classes are put in the order that {path} was trained with: '
                       f'{", ".join(trained[:5])}{", …" if len(trained) > 5 else ""}')


def checkpoint_classes(checkpoint: dict) -> tuple[str, ...]:
    """Return the classes that a checkpoint was trained on, () if it does not remember them."""
    meta = checkpoint.get('meta') or {}
    meta = {**meta, **(meta.get('dataset_meta') or {})}
    classes = meta.get('classes', meta.get('CLASSES')) or ()
    return tuple(classes) if isinstance(classes, (list, tuple)) else ()
