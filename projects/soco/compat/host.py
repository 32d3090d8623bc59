"""The packages of OpenMMLab that are installed: its own last releases, or the maintained forks.

MMSelfSup and MMClassification have no fork of their own: MMPretrain contains what both had. Where only
MMPretrain is installed, importing this module makes `mmselfsup` and `mmcls` importable, by MMPretrain's
modules. So configs, scopes and names in checkpoints are the same with both. Nothing of MMPretrain is
imported before one of the two names is.
"""
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType
from typing import Any

# A fork, and the package whose folder it takes.
FORKS = {'onedl-mmengine': ('mmengine', ), 'onedl-mmcv': ('mmcv', 'mmcv-lite'),
         'onedl-mmdetection': ('mmdet', ), 'onedl-mmpretrain': ('mmpretrain', )}


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_one_host() -> None:
    """Check that no fork is installed beside the package that it replaces.

    Raises:
        ValueError: If one is: they overwrite each other's files, so neither works.
    """
    for fork, originals in FORKS.items():
        both = [name for name in (fork, *originals) if installed_version(name)]
        if len(both) > 1 and fork in both:
            raise ValueError(
                f'{sys.prefix} has two hosts: {" and ".join(both)} are both installed and write to the '
                'same folder, so it contains a mixture of the two. Create a new environment, with '
                'OpenMMLab\'s own releases (bash tools/setup_env.sh, or the extra "lite") or with the '
                'forks (bash tools/setup_env.sh --host onedl, or the extra "onedl"), not with both.')


def check_torchvision() -> None:
    """Check that torchvision was built for the installed torch, without importing either.

    Raises:
        ValueError: If it was built for another one, or one of the two is a CPU build and the other is
            not. Its operators would then be missing: "operator torchvision::nms does not exist".
    """
    from packaging.requirements import Requirement
    from packaging.version import Version
    torch, vision = installed_version('torch'), installed_version('torchvision')
    way_out = ('Install a pair that belongs together, from one index, such as torch 2.14.1 and '
               'torchvision 0.29.1, or create an environment that has it: bash tools/setup_env.sh')
    if torch is None or vision is None:
        absent = 'torchvision' if torch else 'torch'
        raise ValueError(f'{sys.prefix} has no {absent}. {way_out}')
    for text in requires('torchvision') or ():
        needed = Requirement(text)
        if needed.name == 'torch' and not needed.marker and not needed.specifier.contains(torch, True):
            raise ValueError(f'{sys.prefix} has torch {torch} without its torchvision: torchvision '
                             f'{vision} was built for torch {needed.specifier}. {way_out}')
    builds = {(Version(text).local or '') == 'cpu' for text in (torch, vision)}
    if len(builds) > 1:
        raise ValueError(f'{sys.prefix} has torch {torch} without its torchvision: one of it and '
                         f'torchvision {vision} is a build for CPUs only, the other is not. {way_out}')


def _has(module: str) -> bool:
    return PathFinder.find_spec(module) is not None


def host_name() -> str:
    """Return 'onedl' where MMPretrain serves for MMSelfSup and MMClassification, else 'openmmlab'."""
    return 'onedl' if _has('mmpretrain') and not _has('mmselfsup') else 'openmmlab'


class _StandIns(MetaPathFinder, Loader):
    """Serve `mmcls` and `mmselfsup` by MMPretrain, module by module."""

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, inner = name.partition('.')
        if package == 'mmcls' and inner and not _found(f'mmpretrain.{inner}'):
            return None
        if package == 'mmselfsup' and inner not in ('', *_MMSELFSUP) and not (
                inner.startswith('models.') and _found(f'mmpretrain.{inner}')):
            return None
        return ModuleSpec(name, self, is_package=True) if package in ('mmcls', 'mmselfsup') else None

    def exec_module(self, module: ModuleType) -> None:
        package, _, inner = module.__name__.partition('.')
        if package == 'mmselfsup' and inner in _MMSELFSUP:
            vars(module).update(_MMSELFSUP[inner]())
        elif inner == 'registry':
            vars(module).update(_child_registries(package, {}))
        elif inner:
            sys.modules[module.__name__] = importlib.import_module(f'mmpretrain.{inner}')


class _Lanes(MetaPathFinder, Loader):
    """Serve `imgaug`, where it is not installed, as classes that cannot be made.

    The fork of MMDetection imports it for its lanes, which nothing else needs; its distribution, imaug,
    requires an older OpenCV.
    """

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split('.')[0] == 'imgaug' else None

    def exec_module(self, module: ModuleType) -> None:
        def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
            raise ImportError(f'{type(self).__name__} of imgaug is needed, for lanes. Install imaug '
                              'with the OpenCV that it requires, in an environment of its own.')

        def absent(name: str) -> Any:
            if name.startswith('__'):
                raise AttributeError(name)
            return type(name, (), dict(__init__=refuse))

        vars(module)['__getattr__'] = absent


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _child_registries(scope: str, locations: dict[str, list[str]]) -> dict[str, Any]:
    """Return a registry of `scope` for each of MMPretrain's, in which that one is searched next."""
    from mmengine.registry import Registry
    from mmpretrain import registry
    children: dict[str, Any] = {}
    for name in registry.__all__:
        theirs = getattr(registry, name)
        children[name] = Registry(theirs.name, parent=theirs, scope=scope,
                                  locations=locations.get(name, theirs._locations))
        root = theirs._get_root_registry()
        if root is not theirs:
            root._add_child(children[name])  # where mmcls.ResNet is sought from another scope
    return children


def _mmselfsup_registry() -> dict[str, Any]:
    return _child_registries('mmselfsup', {'MODELS': ['mmselfsup.models']})


def _mmselfsup_models() -> dict[str, Any]:
    """Return the classes that behave differently in MMPretrain, with MMSelfSup's behaviour.

    Parameters have the same names in both.
    """
    from mmpretrain.models import heads, necks, selfsup
    from mmselfsup.registry import MODELS

    class BaseModel(selfsup.BaseSelfSupervisor):
        """Has no attribute for a part that is not in the config."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for part in ('neck', 'head', 'target_generator'):
                if getattr(self, part) is None:
                    delattr(self, part)

        @property
        def with_neck(self) -> bool:
            return hasattr(self, 'neck')

        def loss(self, *args: Any, **kwargs: Any) -> dict:
            raise NotImplementedError

    @MODELS.register_module()
    class NonLinearNeck(necks.NonLinearNeck):
        """Returns a list, not a tuple."""

        def forward(self, x: Any) -> list:
            return list(super().forward(x))

    @MODELS.register_module()
    class LatentPredictHead(heads.LatentPredictHead):
        """Is called; `loss` remains MMPretrain's method, for its algorithms."""

        def forward(self, input: Any, target: Any) -> Any:
            return self.loss(input, target)

    @MODELS.register_module()
    class BYOL(selfsup.BYOL):
        """`base_momentum` is the share of the target that is kept, not the share that is replaced."""

        def __init__(self, *args: Any, base_momentum: float = 0.996, **kwargs: Any) -> None:
            super().__init__(*args, base_momentum=1 - base_momentum, **kwargs)

    return dict(BaseModel=BaseModel, NonLinearNeck=NonLinearNeck, LatentPredictHead=LatentPredictHead,
                BYOL=BYOL)


_MMSELFSUP = {'registry': _mmselfsup_registry, 'models': _mmselfsup_models}

check_one_host()
check_torchvision()
if host_name() == 'onedl':
    # First, since the path of a package that is served leads others to its files, under a second name.
    sys.meta_path.insert(0, _StandIns())
    sys.meta_path.append(_Lanes())
