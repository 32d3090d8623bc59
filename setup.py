"""Ships configs and tools inside the package, where OpenMMLab packages keep them (rest: setup.cfg)."""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = Path('projects/soco/.mim')
SHIPPED = ('configs', 'tools', 'model-index.yml')
# These make an environment or a demonstration beside a checkout.
OF_A_CHECKOUT = ('setup_env.sh', 'run_tests.sh', 'quickstart.sh', 'quickstart.py')


class BuildWithMim(build_py):
    """Copies what is shipped into a wheel; links it for an editable install."""

    def run(self) -> None:
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
