"""A hook that makes a detector's convolutions faster on a CPU."""
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the detector's weights in channels_last memory when it runs on a CPU.

    The features then follow in this format, and convolutions are faster (docs/benchmarks.md). Results
    differ by rounding alone. On a GPU it does nothing: there, nothing was measured. Our choice.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights, before a checkpoint is loaded into them."""
        if next(runner.model.parameters()).device.type == 'cpu':
            runner.model.to(memory_format=torch.channels_last)
