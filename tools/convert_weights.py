"""Convert official SoCo weights or this project's to mmdet, detectron2, torchvision or this project.

python tools/convert_weights.py work_dirs/soco_r50_fpn_400e/epoch_400.pth soco.pkl --to detectron2
"""
import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from projects.soco.launch.errors import run_tool
from projects.soco.weights.names import TARGETS

if TYPE_CHECKING:
    from projects.soco.weights.convert import Conversion

CONFIG = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r50_{}_ms-1x_coco.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', help='.pth or .safetensors: a checkpoint of tools/train.py, an '
                        'official SoCo checkpoint, a plain ResNet, or an output of this tool')
    parser.add_argument('output', help='.pth or .safetensors; for detectron2 also .pkl')
    parser.add_argument('--to', required=True, choices=TARGETS,
                        help='library whose parameter names the weights get')
    parser.add_argument('--c4', action='store_true', help='the input is a plain ResNet, and its last '
                        'stage becomes the RoI head of a C4 detector')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args()


def report(conversion: 'Conversion', args: argparse.Namespace) -> None:
    dropped = conversion.dropped.items()
    print(f'{args.input}: {conversion.source} names, {conversion.family}')
    for count, what in [(len(conversion.state_dict), 'moved'),
                        *((len(keys), f'dropped: {rule}') for rule, keys in dropped)]:
        print(f'{count:6} {what}')
    if args.to == 'mmdet' and args.output.endswith('.pth'):
        parts = {name.split('.')[0] for name in conversion.state_dict}
        config = CONFIG.format(conversion.family.lower())
        print(f'Fits {config} (made for ResNet-50)' if 'roi_head' in parts else
              'The weights have no RoI head. To start a detector from them, pass tools/train.py '
              f'--pretrained supervised:{args.output}')
    print(f'The weights for {args.to} are in {args.output}')


def main() -> None:
    args = parse_args()
    from projects.soco.weights.convert import check_output, convert, write_weights
    from projects.soco.weights.read import read_weights
    check_output(args.output, args.to, args.overwrite)
    if Path(args.output).resolve() == Path(args.input).resolve():
        raise ValueError(f'{args.output} is the input. Choose another name for the output.')
    conversion = convert(read_weights(args.input), args.to, c4=args.c4)
    write_weights(conversion, args.output, args.overwrite)
    report(conversion, args)


if __name__ == '__main__':
    run_tool(main)
