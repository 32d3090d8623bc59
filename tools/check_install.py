"""Print what is installed on this machine, and what of it is outside the versions that were tested.

python tools/check_install.py

The exit code is 2 if something is outside, or if nothing can work: two hosts in one environment, or a
torch without its torchvision.
"""
import argparse

from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser.parse_args()


def main() -> None:
    parse_args()
    from projects.soco.launch.installation import describe_installation, refuse_untested
    table, outside = describe_installation()
    print(table, flush=True)
    refuse_untested(outside)


if __name__ == '__main__':
    run_tool(main)
