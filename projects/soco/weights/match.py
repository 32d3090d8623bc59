"""Matching of the tensors of a checkpoint with those of a model."""
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..files import PathLike
from .convert import describe, rename_to_ours, resnet_depth
from .names import INSIDE_BACKBONE, INSIDE_C4_HEAD, PYRAMID_LEVEL
from .same_module import COUNTER, fed_by_another_module, shapes_of

# Predictors depend on the detector's classes: no pretraining has them, so they are never required.
_PREDICTORS = ('fc_cls', 'fc_reg')
_SHARED = 'roi_head.shared_head.layer4.'  # the last stage in C4 detectors and SoCo-C4
# What weights may be pretrained of a model; the other parts depend on a detector's classes.
_PARTS = ('backbone', 'neck', 'roi_head.bbox_head', _SHARED.rstrip('.'), 'projector', 'head.predictor',
          'target')
_COLUMNS = ('matched', 'fresh', 'unused', 'shape differs', 'other module')


def key_group(key: str) -> str:
    """Return the part of a detector that a key belongs to, e.g. 'roi_head.bbox_head.shared_convs'."""
    parts = key.split('.')
    depth = 1
    if parts[0] == 'roi_head':
        depth = 3 if parts[1:2] == ['bbox_head'] else 2
    return '.'.join(parts[:min(depth, len(parts))])


@dataclass(frozen=True)
class WeightsReport:
    """Comparison of the tensors of a checkpoint with those of a model, see `match_weights`.

    Attributes:
        matched (tuple[str, ...]): Keys of both with the same shape.
        fresh (tuple[str, ...]): Keys of the model that the checkpoint lacks.
        unused (tuple[str, ...]): Keys of the checkpoint that the model lacks.
        mismatched (dict): For each key of both with different shapes: the shape in the checkpoint and
            the shape in the model.
        misplaced (dict): For each key of both with the same shape, but of another module: why it is
            one.
        require (tuple[str, ...]): Parts of the model of which every key must match.
    """

    matched: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    require: tuple[str, ...]
    misplaced: dict[str, str] = field(default_factory=dict)

    @property
    def unfilled(self) -> tuple[str, ...]:
        """Keys of the model that get nothing from the checkpoint."""
        return (*self.fresh, *self.mismatched, *self.misplaced)

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """Keys of the checkpoint for which the model has no place."""
        return (*self.unused, *self.mismatched, *self.misplaced)

    def is_required(self, key: str) -> bool:
        """Return whether a key is in a required part and not in a classifier or regressor."""
        parts = key.split('.')
        return not any(p in _PREDICTORS for p in parts) and any(
            key.startswith(group + '.') for group in self.require)

    @property
    def required(self) -> tuple[int, int]:
        """Number of required keys that matched, and number of all required keys."""
        found = sum(map(self.is_required, self.matched))
        return found, found + len(self.lacking)

    @property
    def lacking(self) -> list[str]:
        """Required keys that did not match; BN's counters do not count in a file without any."""
        old = bool(self.matched) and not any(key.endswith(COUNTER) for key in (
            *self.matched, *self.unused))
        return [key for key in self.unfilled
                if self.is_required(key) and not (old and key.endswith(COUNTER))]

    @property
    def complete(self) -> bool:
        """Whether every required part has keys in the checkpoint and all of its keys matched."""
        all_there = all(any(k.startswith(g + '.') for k in self.matched) for g in self.require)
        return all_there and len(set(self.required)) == 1

    def table(self) -> str:
        """Return a table of counts, with one line per part of the model or the checkpoint."""
        counts = [Counter(map(key_group, keys)) for keys in (
            self.matched, self.fresh, self.unused, self.mismatched, self.misplaced)]
        groups = sorted(set().union(*counts), key=lambda g: (counts[2][g] > 0, g))
        columns = _COLUMNS if self.misplaced else _COLUMNS[:-1]
        counts = counts[:len(columns)]
        rows = [('part', *columns), *((g, *(str(c[g] or '-') for c in counts)) for g in groups),
                ('total', *(str(c.total()) for c in counts))]
        widths = [max(map(len, column)) for column in zip(*rows)]
        header, *body, total = [row[0].ljust(widths[0]) + ''.join(
            f'  {cell:>{width}}' for cell, width in zip(row[1:], widths[1:])) for row in rows]
        rule = '-' * len(header)
        lines = [header, rule, *body, rule, total]
        lines += [f'not loaded: {why}' for why in dict.fromkeys(self.misplaced.values())]
        if self.require:
            found, needed = self.required
            lines.append(f'{found} of {needed} keys matched in the parts that the checkpoint must '
                         f'contain ({", ".join(self.require)}; without {", ".join(_PREDICTORS)})')
        return '\n'.join(lines)

    def check_whole(self, path: PathLike) -> None:
        """Check that a checkpoint has every tensor of a detector that is to be used as it is.

        Args:
            path (PathLike): The checkpoint.

        Raises:
            ValueError: If tensors are missing; the message says what the checkpoint looks like.
        """
        untrained = [key for key in self.unfilled if not key.endswith(COUNTER)]
        if untrained:
            looks = describe([*self.matched, *self.not_loaded])
            raise ValueError(
                f'{path} is not a checkpoint of this detector: {len(untrained)} of its tensors are '
                f'missing or have another shape, such as {untrained[0]}; {looks}. Use a checkpoint '
                'that fine-tuning with this config wrote (iter_*.pth or epoch_*.pth in its work '
                'directory).')

    def explain(self) -> str:
        """Return a paragraph that says why the report is not complete, and what to do."""
        found, total = self.required
        wrong = [(k, *shapes) for k, shapes in self.mismatched.items() if self.is_required(k)]
        other = [why for key, why in self.misplaced.items() if self.is_required(key)]
        theirs = [*self.matched, *self.not_loaded]
        ours = [*self.matched, *self.unfilled]
        depths = [resnet_depth(theirs), resnet_depth(ours)]
        if wrong:
            key, shape, wanted = wrong[0]
            why = (f'{len(wrong)} of them have another shape, such as {key}: {list(shape)} in '
                   f'the checkpoint and {list(wanted)} in the model, so the two differ in depth '
                   'or widths')
        elif other:
            why = f'{len(other)} of them belong to another module: {other[0]}'
        else:
            missing = self.lacking
            example = f', such as {missing[0]}' if missing else ''
            why = f'{len(missing)} of them are not in the checkpoint{example}; {describe(theirs)}'
        if all(depths) and depths[0] != depths[1]:
            why = f'it has a {depths[0]}, and this model a {depths[1]}; {why}'
        whole = [part for part in self.require if any(k.startswith(f'{part}.') for k in self.matched)
                 and not any(k.startswith(f'{part}.') for k in self.lacking)]
        only = (f' To load only what fits, add --cfg-options default_hooks.pretrained.require='
                f'[{",".join(whole)}].' if whole else '')
        return (
            f'The checkpoint does not fit this model: {found} of {total} keys of '
            f'{", ".join(self.require)} matched. {why[0].upper()}{why[1:]}. Use a checkpoint '
            'that tools/train.py wrote for a SoCo config with the same backbone, neck and box '
            f'head as this model, or weights of the same backbone.{only}')


def brought_parts(model_state: Mapping[str, Tensor], checkpoint_state: Mapping[str, Tensor]
                  ) -> tuple[str, ...]:
    """Return the parts that must arrive completely: the backbone, and all that the file has some of.

    Args:
        model_state (Mapping[str, Tensor]): State dict of the model.
        checkpoint_state (Mapping[str, Tensor]): State dict of the checkpoint, with the model's names.

    Returns:
        tuple[str, ...]: Such as ('backbone', 'neck'). Predictors do not count: they depend on classes.
    """
    shared = [key for key in checkpoint_state if key in model_state
              and not any(part in _PREDICTORS for part in key.split('.'))]
    return tuple(part for part in _PARTS if any(key.startswith(f'{part}.') for key in (
        model_state if part == 'backbone' else shared)))


def fit_names(model_state: Mapping[str, Tensor], checkpoint_state: Mapping[str, Tensor]
              ) -> dict[str, str]:
    """Return the name in a model of each tensor of a checkpoint, whatever library wrote it.

    The stages of a backbone alone are mapped to `backbone`; in a C4 detector, the last one is mapped to
    the RoI head. If the model's pyramid starts at a coarser level than the checkpoint's (RetinaNet,
    FCOS: at P3), the lateral and output convs are renumbered so that the levels correspond; those of
    the finer levels are renamed to `neck_finer_levels`. For a backbone alone (linear evaluation),
    SoCo-C4's last stage is mapped back to the backbone.

    Args:
        model_state (Mapping[str, Tensor]): State dict of the detector, the classifier or SoCo.
        checkpoint_state (Mapping[str, Tensor]): State dict of the checkpoint.

    Returns:
        dict[str, str]: For every key of the checkpoint, its name in the model.
    """
    inside = {found[1]: key for pattern in (INSIDE_BACKBONE, INSIDE_C4_HEAD) for key in model_state
              if (found := re.fullmatch(pattern, key))}
    names = rename_to_ours(checkpoint_state, inside, model_state)
    if not any(k.startswith('roi_head.') for k in model_state):
        for key, name in names.items():
            if name.startswith(_SHARED):
                names[key] = 'backbone.layer4.' + name.removeprefix(_SHARED)
    shift = _pyramid_shift({n: checkpoint_state[k] for k, n in names.items()}, model_state)
    if shift:
        for key, name in names.items():
            level = re.fullmatch(PYRAMID_LEVEL, name)
            if level:
                i = int(level[3]) - shift
                names[key] = (f'{level[1]}{level[2]}_convs.{i}.{level[4]}' if i >= 0 else
                              f'{level[1].rstrip(".")}_finer_levels.{level[2]}_convs.{level[3]}.'
                              f'{level[4]}')
    return names


def _pyramid_shift(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> int:
    """Return how many levels higher our pyramid starts, from the shapes of the first lateral convs."""
    name = 'neck.lateral_convs.{}.conv.weight'
    shapes, own = ([state[name.format(i)].shape for i in range(8) if name.format(i) in state]
                   for state in (theirs, ours))
    if not shapes or not own:
        return 0
    if own[0] in shapes:
        return shapes.index(own[0])
    return -own.index(shapes[0]) if shapes[0] in own else 0


def match_weights(model_state: Mapping[str, Tensor], checkpoint_state: Mapping[str, Tensor],
                  require: Sequence[str] = ()) -> WeightsReport:
    """Compare the tensors of a checkpoint with those of a model: the module, then name and shape.

    See `fed_by_another_module` for what is not the same module.

    Args:
        model_state (Mapping[str, Tensor]): State dict of the detector.
        checkpoint_state (Mapping[str, Tensor]): State dict of the checkpoint; a leading 'module.' of
            its keys (from a parallel wrapper) is ignored.
        require (Sequence[str]): Parts of the detector, such as 'neck' or 'roi_head.bbox_head', of
            which every key must match except those of the classifier (fc_cls) and the regressor
            (fc_reg). Defaults to none.

    Returns:
        WeightsReport: The comparison. Missing keys raise no error, and the state dicts are not changed.
    """
    theirs, ours = shapes_of(checkpoint_state), shapes_of(model_state)
    shared = [k for k in ours if k in theirs]
    other = fed_by_another_module(theirs, ours)
    return WeightsReport(
        matched=tuple(k for k in shared if ours[k] == theirs[k] and k not in other),
        fresh=tuple(k for k in ours if k not in theirs),
        unused=tuple(k for k in theirs if k not in ours),
        mismatched={k: (theirs[k], ours[k]) for k in shared if ours[k] != theirs[k]},
        require=tuple(require),
        misplaced={k: other[k] for k in shared if ours[k] == theirs[k] and k in other})
