"""Check that a run can start, before any of its processes is launched."""
import runpy
import sys

from .errors import run_tool


def main() -> None:
    """Check that a run can start; arguments: SCRIPT GPUS CONFIG [arguments of SCRIPT].

    SCRIPT is tools/train.py or tools/test.py; its own parser reads the arguments. With 'elsewhere' for
    GPUS, the devices and files of this machine are not checked, as the run is for other machines.
    """
    script, gpus, *sys.argv[1:] = sys.argv[1:]
    sys.argv[0] = script
    args = runpy.run_path(script)['parse_args']()

    from .annotations import TESTING, TRAINING
    from .checks import (
        check_devices,
        check_inputs,
        check_shared_memory,
        check_unused,
        default_work_dir,
    )
    from .configs import load_config, set_pretrained
    cfg = load_config(args.config, args.cfg_options, register=False, cpu=args.cpu)
    if getattr(args, 'pretrained', None):
        set_pretrained(cfg, args.pretrained)
    if gpus == 'elsewhere':
        return
    cfg.work_dir = default_work_dir(args.config, args.work_dir, cfg, getattr(args, 'pretrained', None))
    if not (script.endswith('test.py') or args.resume or cfg.get('resume')):
        check_unused(cfg.work_dir)
    check_inputs(cfg, TESTING if script.endswith('test.py') else TRAINING)
    import torch  # late, as its import takes the longest
    check_devices(cfg, int(gpus), torch.cuda.device_count())
    check_shared_memory(cfg, int(gpus))


if __name__ == '__main__':
    run_tool(main)
