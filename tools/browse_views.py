"""Draw what the model sees: photos with proposals, and their views after augmentation with the boxes.

    python tools/browse_views.py configs/soco_r50_fpn_400e.py --num 8

A sample depends only on seed, epoch and photo: the pictures show what a run of this config sees.
"""
import argparse
from pathlib import Path

from projects.soco.launch.arguments import add_options_argument
from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('--num', type=int, default=8, help='number of photos, evenly spread over '
                        'the data set (default: 8)')
    parser.add_argument('--out', type=Path, help='folder for the pictures (default: '
                        'work_dirs/<name of the config>/views)')
    parser.add_argument('--width', type=int, metavar='PIXELS', help='width of the pictures (default: '
                        'as they are drawn)')
    parser.add_argument('--epoch', type=int, default=0, help='epoch of the samples, from 0 on '
                        '(default: 0)')
    parser.add_argument('--seed', type=int, help='seed of the run (default: that of the config)')
    add_options_argument(parser, 'train_dataloader.dataset.data_root=FOLDER '
                         'train_dataloader.dataset.proposals=FILE')
    args = parser.parse_args()
    if args.num < 1 or args.epoch < 0 or (args.seed or 0) < 0 or (args.width or 1) < 1:
        raise ValueError('--num and --width must be at least 1, --epoch and --seed at least 0.')
    if args.out is None:
        args.out = Path('work_dirs', Path(args.config).stem, 'views')
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out {args.out} is a file, but several pictures are written: use a folder')
    return args


def main() -> None:
    args = parse_args()
    from projects.soco.launch.checks import check_inputs
    from projects.soco.launch.configs import load_config, register_modules
    cfg = load_config(args.config, args.cfg_options, register=False)
    check_inputs(cfg)

    import numpy as np
    from rich.progress import track

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.datasets import SampleKey
    from projects.soco.engine import ViewDrawer
    from projects.soco.pictures.canvas import resize_picture, save_image
    register_modules(cfg)
    seed = cfg.randomness.seed if args.seed is None else args.seed
    drawer = ViewDrawer.from_config(cfg)
    photos = len(drawer.dataset.store)
    chosen = np.unique(np.linspace(0, photos - 1, args.num).round().astype(int)).tolist()
    for index in track(chosen, description='drawing', transient=True):
        picture = drawer.draw(SampleKey(index, args.epoch, seed))
        if args.width:
            picture = resize_picture(picture, args.width)
        save_image(picture, args.out / f'views_{index}.png')
    print(f'{len(chosen)} of {photos} photos, epoch {args.epoch}, seed {seed}: '
          f'{args.out}/views_*.png')


if __name__ == '__main__':
    run_tool(main)
