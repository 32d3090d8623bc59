#!/usr/bin/env python
"""Survey the detectors that MMDetection ships: derive, build and hand back each of them.

    python tools/survey_detectors.py OUT.json

Detectors with the same backbone, neck and box head are examined once. A stopped survey goes on when the
same command is started again.
"""
import argparse
import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='JSON file of the findings')
    parser.add_argument('--only', metavar='TEXT', default='', help='only configs with TEXT in their '
                        'path')
    parser.add_argument('--overwrite', action='store_true', help='examine all of them again')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.utils import get_installed_path

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.detectors.survey import (
        Finding,
        encode,
        family_table,
        shipped_configs,
        survey,
    )
    from projects.soco.files import write_whole
    from projects.soco.launch.configs import load_config
    start = time.monotonic()
    cache_path = args.out.with_suffix('.cache.json')
    cache = {} if args.overwrite or not cache_path.exists() else json.loads(cache_path.read_text())
    names = shipped_configs(Path(get_installed_path('mmdet')) / '.mim/configs', args.only)
    print(f'{len(names)} configs have a model with a backbone.')

    def report(name: str, finding: Finding, new: bool) -> None:
        if new:
            write_whole(cache_path, json.dumps(cache).encode())
            print(f'{time.monotonic() - start:6.0f} s  {finding.status:8}{name}  {finding.why[:100]}',
                  flush=True)

    findings = survey(names, load_config(str(RECIPE), {}), cache, report)
    for by in ('backbone', 'neck', 'box_head'):
        rows = family_table(findings, by)
        width = max(len(row[0]) for row in rows)
        print(f'\n{by.replace("_", " "):{width}}  configs  whole  part  refused')
        for kind, *counts in rows:
            print(f'{kind:{width}}  {counts[0]:7}  {counts[1]:5}  {counts[2]:4}  {counts[3]:7}')
    whole = sum(finding.status == 'whole' for finding in findings.values())
    print(f'\n{whole} of {len(findings)} ({whole / len(findings):.1%}) are pretrained with their neck '
          'and with the shared layers of their box head, as far as they have them.')
    write_whole(args.out, encode(
        findings, command='python tools/survey_detectors.py ' + str(args.out),
        date=f'{datetime.now(UTC):%Y-%m-%d}', python=platform.python_version()))
    cache_path.unlink(missing_ok=True)
    print(f'The findings are in {args.out}')


if __name__ == '__main__':
    from projects.soco.launch.errors import run_tool
    run_tool(main)
