"""Publish a pretraining checkpoint: write reduced weights as .pth and .safetensors, and a model card.

python tools/publish_model.py work_dirs/soco_r50_fpn_400e/epoch_400.pth published
"""
import argparse

from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='a checkpoint that tools/train.py wrote for a SoCo config')
    parser.add_argument('out_dir', help='folder for the files')
    parser.add_argument('--name', help='prefix of the file names (default: name of the config)')
    parser.add_argument('--results', metavar='JSON', help='results for the card: a list of objects '
                        'with task, metric, value, and source (who measured it, and how); without it '
                        'the cells are empty')
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from projects.soco.runs.publish import publish, read_results
    results = read_results(args.results) if args.results else ()
    published = publish(args.checkpoint, args.out_dir, args.name, results, args.overwrite)
    print(f'{len(published.conversion.state_dict):6} tensors kept')
    for rule, keys in published.conversion.dropped.items():
        print(f'{len(keys):6} dropped: {rule}')
    print('The files contain the text of the config, with its paths.')
    for path in (*published.weights, published.card):
        print(f'Written: {path}')


if __name__ == '__main__':
    run_tool(main)
