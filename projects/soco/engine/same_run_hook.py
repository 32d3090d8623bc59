"""A hook that checks that all ranks run the same config, code and data."""
import hashlib
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SameRunHook(Hook):
    """Stop before the first step if ranks differ in config, code, libraries or data.

    Raises:
        ValueError: If they differ; the message names the ranks and the differences.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the runs of all ranks."""
        if get_world_size() == 1:
            return
        everywhere = all_gather_object(run_identity(runner))
        differing = {what: sorted({rank for rank, other in enumerate(everywhere)
                                   if other[what] != everywhere[0][what]}) for what in everywhere[0]}
        told = [f'{what} (rank 0: {everywhere[0][what]}; rank {ranks[0]}: {everywhere[ranks[0]][what]})'
                for what, ranks in differing.items() if ranks]
        if told:
            raise ValueError(f'The processes differ in {"; ".join(told)}. '
                             'Use the same checkout, environment, config and data on every machine.')


def run_identity(runner: Runner) -> dict[str, str]:
    """Return what has to be equal on every rank: config, code, torch and data, by name.

    Args:
        runner (Runner): The runner, with its training data loader.

    Returns:
        dict[str, str]: Name to a hash, version or short description.
    """
    cfg = Config(runner.cfg._cfg_dict.to_dict())
    for key in ('work_dir', 'launcher', 'local_rank', 'load_from'):
        cfg.pop(key, None)
    code = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob('*.py')):
        code.update(str(path.relative_to(root)).encode() + path.read_bytes())
    dataset = runner.train_dataloader.dataset
    data = getattr(dataset, 'fingerprint', lambda: str(len(dataset)))()
    return {'the config': hashlib.sha256(cfg.dump().encode()).hexdigest()[:12],
            'the code': code.hexdigest()[:12], 'torch': torch.__version__, 'the data': data}
