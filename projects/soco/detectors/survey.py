"""What can be pretrained of many detectors: each is derived, built and handed back."""
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..compat.cpu import cpu_config
from ..weights.convert import for_detector
from .build import build_detector, quiet
from .derive import derive
from .hand_over import check_fit, load_and_compare
from .read import config_path, plain, read_detector


@dataclass
class Finding:
    """What the survey found for a detector.

    Attributes:
        backbone (str): Its type.
        neck (str): Its type, or the types of a list; '' without a neck.
        box_head (str): Type of the box head or shared head; '' without a RoI head.
        status (str): 'whole': backbone, neck and the shared layers of the box head, as far as it has
            them, are pretrained and arrive; 'part': something of these is not; 'refused'.
        why (str): Why something is not pretrained; '' if all is.
        tensors (int): Tensors that arrived, compared bit by bit.
        built (bool): Whether the whole detector was built; otherwise only its backbone, neck, RoI head.
    """

    backbone: str
    neck: str
    box_head: str
    status: str
    why: str = ''
    tensors: int = 0
    built: bool = True


def examine(detector: Config, recipe: Config) -> Finding:
    """Derive the pretraining config of a detector, build its network, and hand its weights back.

    Args:
        detector (Config): The output of `read_detector`.
        recipe (Config): See `derive`.

    Returns:
        Finding: What was found.
    """
    finding = Finding(*_types(detector.model), status='refused')
    try:
        cfg, parts = derive(detector, recipe)
        with DefaultScope.overwrite_default_scope(cfg.default_scope), quiet():
            state = MODELS.build(cpu_config(cfg).model).state_dict()
        weights = for_detector(state, parts.prefixes).state_dict
        model, finding.built = build_detector(detector)
        check_fit(weights, model.state_dict(), parts, 'the network')
        finding.tensors = len(load_and_compare(model, weights, weights))
    except Exception as error:  # a survey goes on; what is no message for users is shown as such
        finding.why = str(error) if isinstance(error, ValueError) else repr(error)
        return finding
    has_head = bool(finding.box_head)
    missing = has_head and not any(name.startswith('roi_head.') for name in parts.prefixes)
    finding.status = 'part' if missing else 'whole'
    finding.why = next(iter(parts.reasons.values()), '') if missing else ''
    return finding


def _types(model: dict) -> tuple[str, str, str]:
    def name(node: Any) -> str:
        if isinstance(node, (list, tuple)):
            return ' + '.join(map(name, node))
        return str(node['type']).split('.')[-1] if node else ''

    roi_head = model.get('roi_head') or {}
    heads = roi_head.get('bbox_head')
    head = name(roi_head.get('shared_head')) or name(heads[0] if isinstance(heads, list) else heads)
    return name(model['backbone']), name(model.get('neck')), head


def signature(detector: Config) -> str:
    """Return a name for the parts of a detector that `examine` looks at; equal parts have one name."""
    model = detector.model
    roi_head = model.get('roi_head') or {}
    content = [plain(value) for value in (
        model['type'], model['backbone'], model.get('neck'), roi_head.get('type'),
        roi_head.get('shared_head'), roi_head.get('bbox_head'), roi_head.get('bbox_roi_extractor'))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def shipped_configs(folder: Path, only: str = '') -> list[str]:
    """Return the configs of a folder that have a model with a backbone, sorted, without `_base_`.

    Args:
        folder (Path): MMDetection's folder of configs.
        only (str): A text that their paths contain. Defaults to '': all.

    Returns:
        list[str]: Paths relative to the folder.
    """
    found = []
    for path in sorted(folder.rglob('*.py')):
        name = path.relative_to(folder).as_posix()
        if name.startswith('_base_/') or only not in name:
            continue
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception:  # noqa: S112 (some need packages or files that MMDetection does not have)
            continue
        if isinstance(cfg.get('model'), dict) and 'backbone' in cfg.model:
            found.append(name)
    return found


def survey(names: Iterable[str], recipe: Config, cache: dict[str, dict],
           report: Any = lambda name, finding, new: None) -> dict[str, Finding]:
    """Examine detectors that MMDetection ships; those with equal parts are examined once.

    Args:
        names (Iterable[str]): Paths in MMDetection's folder of configs.
        recipe (Config): See `derive`.
        cache (dict[str, dict]): Findings by signature; new ones are added.
        report (Callable): Called for each detector with its name, its finding, and whether it is new.

    Returns:
        dict[str, Finding]: Findings by name.
    """
    findings = {}
    for name in names:
        new = False
        try:
            detector, _ = read_detector(f'mmdet::{name}')
        except ValueError as error:
            why = str(error).removeprefix(f'{config_path(f"mmdet::{name}")}: ')
            findings[name] = Finding('', '', '', 'refused', why)
        else:
            key = signature(detector)
            new = key not in cache
            if new:
                torch.manual_seed(0)
                cache[key] = asdict(examine(detector, recipe))
            findings[name] = Finding(**cache[key])
        report(name, findings[name], new)
    return findings


def family_table(findings: dict[str, Finding], by: str) -> list[tuple[str, int, int, int, int]]:
    """Count the findings by the type of a part.

    Args:
        findings (dict[str, Finding]): Findings by name.
        by (str): 'backbone', 'neck' or 'box_head'.

    Returns:
        list[tuple[str, int, int, int, int]]: Type, number of detectors, and how many of them are whole,
        part and refused; the most frequent type first.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    for finding in findings.values():
        counts[getattr(finding, by) or 'none'][finding.status] += 1
    rows = [(kind, count.total(), count['whole'], count['part'], count['refused'])
            for kind, count in counts.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def encode(findings: dict[str, Finding], **about: Any) -> bytes:
    """Return the content of the file of a survey, with one line per detector.

    Args:
        findings (dict[str, Finding]): Findings by name.
        **about: Further entries, such as the command and the date.
    """
    counts = Counter(finding.status for finding in findings.values())
    head = json.dumps(dict(about, total=len(findings), **counts), indent=1)
    lines = ',\n'.join(f'{json.dumps(name)}: {json.dumps(asdict(finding), ensure_ascii=False)}'
                       for name, finding in findings.items())
    return f'{head[:-2]},\n "configs": {{\n{lines}\n}}}}\n'.encode()


def decode(content: bytes) -> dict[str, Finding]:
    """Return the findings in the file of a survey."""
    return {name: Finding(**values) for name, values in json.loads(content)['configs'].items()}
