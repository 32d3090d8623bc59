"""Write the report of a run, of pretraining or of a detector, as one HTML page that opens offline.

python tools/report.py work_dirs/soco_r50_fpn_400e
"""
import argparse

from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', help='work directory of a SoCo pretraining or of a detector, '
                        'running or finished')
    parser.add_argument('--out', metavar='FILE', help='HTML file (default: WORK_DIR/report.html)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from projects.soco.runs.report import write_report
    print(f'The report is at {write_report(args.work_dir, args.out)}. Open it in any browser.')


if __name__ == '__main__':
    run_tool(main)
