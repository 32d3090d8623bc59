"""Build step that ships configs and tools inside the package, like OpenMMLab; see also setup.cfg."""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = Path('projects/soco/.mim')
SHIPPED = ('configs', 'tools', 'model-index.yml')
# Files that are useful only in a checkout: environment set-up, tests and the demonstration.
OF_A_CHECKOUT = ('setup_env.sh', 'run_tests.sh', 'test_matrix.sh', 'quickstart.sh', 'quickstart.py')


class BuildWithMim(build_py):
    """Copy the shipped files into a wheel, or link them for an editable install."""

    def run(self) -> None:
        """Build the package and add `.mim`."""
        super().run()
        folder = (ROOT if self.editable_mode else Path(self.build_lib)) / MIM
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in SHIPPED:
            source = ROOT / name
            if self.editable_mode:
                (folder / name).symlink_to(os.path.relpath(source, folder))
            elif source.is_dir():
                ignored = shutil.ignore_patterns('__pycache__', *OF_A_CHECKOUT)
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy2(source, folder / name)


setup(cmdclass={'build_py': BuildWithMim})
