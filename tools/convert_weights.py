"""Convert official SoCo weights or this project's to mmdet, detectron2, torchvision or this project.

python tools/convert_weights.py work_dirs/soco_r50_fpn_400e/epoch_400.pth soco.pkl --to detectron2
"""
import argparse
from pathlib import Path

from projects.soco.launch.errors import run_tool
from projects.soco.runs.next_steps import detectors_of_weights
from projects.soco.weights.convert import Conversion, convert
from projects.soco.weights.names import TARGETS
from projects.soco.weights.read import read_weights
from projects.soco.weights.write import check_output, write_weights


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', help='.pth, .safetensors or .pkl: a checkpoint of '
                        'tools/train.py, an official SoCo checkpoint, a ResNet (plain, or inside the '
                        'network of another method), or an output of this tool')
    parser.add_argument('output', help='.pth or .safetensors; for detectron2 also .pkl')
    parser.add_argument('--to', required=True, choices=TARGETS,
                        help='library whose parameter names the weights get')
    parser.add_argument('--c4', action='store_true', help='the input is a plain ResNet, and its last '
                        'stage becomes the RoI head of a C4 detector')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args()


def fitting(conversion: Conversion, output: str) -> str:
    """Return a sentence on the detectors that start from weights for mmdet."""
    what, configs = detectors_of_weights(conversion.state_dict, conversion.family)
    if configs:
        return f'{what}: fits {" and ".join(configs)}'
    if not any(name.startswith('roi_head.') for name in conversion.state_dict):
        return (f'{what}, without neck and RoI head. To start a detector or a pretraining with this '
                f'backbone from them, pass tools/train.py --pretrained supervised:{output}')
    return (f'{what}: fits no detector config of this project. Inherit from one in '
            'configs/benchmarks/mmdetection and set the same sizes: docs/transfer.md')


def report(conversion: Conversion, args: argparse.Namespace) -> None:
    dropped = conversion.dropped.items()
    print(f'{args.input}: {conversion.source} names, {conversion.family}')
    for count, what in [(len(conversion.state_dict), 'moved'),
                        *((len(keys), f'dropped: {rule}') for rule, keys in dropped)]:
        print(f'{count:6} {what}')
    if args.to == 'mmdet':
        print(fitting(conversion, args.output))
    print(f'The weights for {args.to} are in {args.output}')


def main() -> None:
    args = parse_args()
    check_output(args.output, args.to, args.overwrite)
    if Path(args.output).resolve() == Path(args.input).resolve():
        raise ValueError(f'{args.output} is the input. Choose another name for the output.')
    conversion = convert(read_weights(args.input), args.to, c4=args.c4)
    write_weights(conversion, args.output, args.overwrite)
    report(conversion, args)


if __name__ == '__main__':
    run_tool(main)
