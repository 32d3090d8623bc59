"""Print recipes' parameters and GFLOP, and the number of keys that their weights fill in a detector."""
import argparse
from pathlib import Path

from projects.soco.launch.errors import run_tool

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', type=Path, help='pretraining configs (default: every '
                        'recipe in configs/)')
    parser.add_argument('--detector', type=Path, help='config of the detector to match (default: the '
                        'one that the config was derived from, or the one with the same parts in '
                        'configs/benchmarks/mmdetection)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from projects.soco.launch.configs import load_config
    for path in (*args.configs, *filter(None, [args.detector])):
        load_config(str(path), {}, register=False)  # refuses what cannot be read

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.evaluation.cost import match_detector, measure_cost
    from projects.soco.runs.next_steps import DETECTOR_FILE, HAND_OVER, fitting_detector
    configs = args.configs or sorted((ROOT / 'configs').glob('soco_*.py'))
    console = Console(markup=False)
    table = Table(box=None)
    for column in ('config', 'parameters (M)', 'GFLOP per image and step', 'keys matched', 'detector'):
        table.add_column(column, justify='left' if column in ('config', 'detector') else 'right',
                         overflow='fold')
    for path in track(configs, 'counting', console=console, transient=True):
        cfg = load_config(str(path), {})
        cost = measure_cost(cfg)
        own = path.with_name(DETECTOR_FILE) if cfg.get(HAND_OVER) else None  # what it was derived from
        detector = args.detector or own or fitting_detector(cfg.model)
        if detector is None:
            raise ValueError(f'No detector config of the project has the parts of {path}. Set '
                             '--detector FILE.')
        detector = ROOT / detector
        found, needed = match_detector(load_config(str(detector), {}), cost.state,
                                       cfg.get(HAND_OVER)).required
        table.add_row(path.stem, f'{cost.parameters / 1e6:.2f}', f'{cost.gflop:.1f}',
                      f'{found} of {needed}', detector.stem)
    console.print(table)


if __name__ == '__main__':
    run_tool(main)
