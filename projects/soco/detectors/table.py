"""The table of a detector's parts: what is pretrained, or why not."""
import re
from collections.abc import Sequence

from torch import nn

from .hand_over import is_shared, reason
from .parts import Parts


def part_rows(detector: nn.Module, parts: Parts) -> list[tuple[str, str, int, str]]:
    """List the parts of a detector.

    Args:
        detector (nn.Module): The output of `build_detector`.
        parts (Parts): What of it is pretrained.

    Returns:
        list[tuple[str, str, int, str]]: Name of the part, its modules, its number of tensors, and
        'yes' or why it is not pretrained. The stages of a cascade are one row.
    """
    stages = max(map(len, parts.prefixes.values()))
    rows: dict[tuple[str, str], list] = {}
    for name in detector.state_dict():
        why = reason(name, parts)
        pretrained = is_shared(name, parts)
        if pretrained and any(f'{name}.'.startswith(f'{part}.') for part in parts.kept):
            why = 'no: it stays as it is loaded (--freeze)'
        elif pretrained and any(f'{name}.'.startswith(f'{part}.') for part in parts.frozen):
            why = 'no: no box of a view reaches it; it is handed over as it starts'
        elif pretrained:
            once = stages > 1 and '.bbox_head.' in name
            why = f'yes, once for its {stages} stages' if once else 'yes'
        part, module = _part_of(name, detector)
        row = rows.setdefault((part, why), [{}, 0])
        row[0].setdefault(type(module).__name__)
        row[1] += 1
    return [(part, ', '.join(kinds), count, why) for (part, why), (kinds, count) in rows.items()]


def _part_of(name: str, detector: nn.Module) -> tuple[str, nn.Module]:
    """Return the part of a tensor, with * for a stage of a cascade, and the module."""
    words = name.split('.')
    depth = 1
    if words[0] == 'roi_head':
        depth = 2 if not (len(words) > 2 and words[2].isdigit()) else 3
    module = detector.get_submodule('.'.join(words[:min(depth, len(words) - 1)]))
    if isinstance(module, nn.Sequential) and words[0] == 'neck':
        module = module[int(words[1])]
    part = '.'.join(words[:depth])
    if words[:2] == ['roi_head', 'bbox_head']:
        layer = words[depth] if depth < len(words) else ''
        part = f'{part}.{"shared layers" if layer.startswith("shared_") else "outputs"}'
    return re.sub(r'\.\d+(\.|$)', r'.*\1', part), module


def format_table(rows: Sequence[tuple[str, str, int, str]], width: int = 100) -> str:
    """Return rows as aligned text with a header."""
    cells = [('part', 'modules', 'tensors', 'pretrained'),
             *((part, modules, str(count), why) for part, modules, count, why in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = [f'{part:{widths[0]}}  {modules:{widths[1]}}  {count:>{widths[2]}}  {why}'.rstrip()
             for part, modules, count, why in cells]
    return '\n'.join([lines[0], '-' * min(width, max(map(len, lines))), *lines[1:]])
