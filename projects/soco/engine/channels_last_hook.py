"""A hook that makes a detector's convolutions faster on a CPU."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..compat.memory_format import use_channels_last


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the detector's weights in channels_last memory when it runs on a CPU.

    The features follow in this format, and convolutions are faster (docs/benchmarks.md). Results
    differ by rounding alone. Networks for which it is not safe stay as they are. On a GPU it does
    nothing: there, nothing was measured. Our choice.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights, before a checkpoint is loaded into them."""
        if next(runner.model.parameters()).device.type == 'cpu':
            use_channels_last(runner.model)
