"""The command `mmsoco`: the project's tools, for those who installed the package."""
import importlib.util
import os
import sys

from . import __version__
from .files import project_folder
from .launch.errors import run_tool

# A wheel contains the tools in .mim; an editable install links them there. Name: tool, what it does.
COMMANDS = {
    'proposals': ('generate_proposals.py', 'make a proposal store from photos'),
    'inspect-proposals': ('inspect_proposals.py', 'statistics and pictures of a store; merge, subset'),
    'check-annotations': ('check_annotations.py', 'find errors in an annotation file'),
    'views': ('browse_views.py', 'draw what the model sees'),
    'pretrain': ('train.py', 'train a config: pretraining, or a detector that starts from it'),
    'pretrain-detector': ('pretrain_detector.py', "pretrain the modules of a detector's config"),
    'compare': ('compare_starts.py', 'train a detector from several starts and compare them'),
    'test': ('test.py', 'test a detector'),
    'curves': ('plot_curves.py', 'draw losses, spread and speed of runs'),
    'report': ('report.py', 'write a run as one HTML page'),
    'evaluate': ('evaluate_objects.py', 'evaluate object features without fine-tuning'),
    'convert': ('convert_weights.py', 'convert weights between libraries'),
    'publish': ('publish_model.py', 'write weights and a model card'),
    'check-install': ('check_install.py', 'print what is installed, and what is untested'),
    'gpu-check': ('gpu_check.sh', 'check the project on a GPU'),
}


def usage() -> str:
    """Return the help: one line for each command whose tool this installation has."""
    folder = project_folder() / 'tools'
    lines = [f'  {name:<18} {text}' for name, (tool, text) in COMMANDS.items()
             if (folder / tool).is_file()]
    return '\n'.join(['usage: mmsoco COMMAND [arguments]', '', *lines, '',
                      'mmsoco COMMAND --help prints the arguments of a command. Configs are in',
                      str(folder.parent / 'configs')])


def main() -> None:
    """Run the tool that the first argument names, with the other arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name in ('', '-h', '--help'):
        print(usage())
        sys.exit(0 if name else 2)
    if name == '--version':
        print(f'mmsoco {__version__}')
        return
    tool = project_folder() / 'tools' / COMMANDS.get(name, ('', ''))[0]
    if not tool.is_file():
        print(f'error: mmsoco has no command {name!r}; mmsoco --help lists them.', file=sys.stderr)
        sys.exit(2)
    if tool.suffix == '.sh':
        os.execvp('bash', ['bash', str(tool), *sys.argv[2:]])
    sys.argv = [f'mmsoco {name}', *sys.argv[2:]]  # the name in usage messages
    spec = importlib.util.spec_from_file_location(tool.stem, tool)
    module = importlib.util.module_from_spec(spec)
    sys.modules[tool.stem] = module
    spec.loader.exec_module(module)

    def run() -> None:
        code = module.main()
        if code:
            sys.exit(code)

    run_tool(run)


if __name__ == '__main__':
    main()
