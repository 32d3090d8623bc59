"""What the installation check prints, and what it finds outside of the tested versions."""
from importlib.metadata import PackageNotFoundError

import pytest
from packaging.requirements import Requirement
from small import ROOT

from projects.soco.launch import installation

NEEDED = ['torch<2.16,>=2.11', 'numpy<2.6,>=2.4', 'mmdet==3.3.0; extra == "frozen"',
          'onedl-mmcv==2.3.6; extra == "onedl"', 'pytest; extra == "tests"']


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    versions = {'torch': '2.14.1+cpu', 'numpy': '2.5.5', 'mmdet': '3.3.0', 'mmcv-lite': '2.0.1'}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(installation, 'version', version)
    monkeypatch.setattr(installation, 'requires', lambda name: NEEDED)
    monkeypatch.setattr(installation, 'machine_rows', lambda host: [('python', '3.12.1')])
    return versions


def test_versions_within_the_ranges(installed: dict):
    assert list(installation.package_rows('openmmlab')) == [
        ('torch', '2.14.1+cpu', '<2.16,>=2.11', True), ('numpy', '2.5.5', '<2.6,>=2.4', True),
        ('mmdet', '3.3.0', '==3.3.0', True), ('mmcv-lite', '2.0.1', '', True)]
    assert installation.tested_ranges('onedl') == {
        'torch': '<2.16,>=2.11', 'numpy': '<2.6,>=2.4', 'onedl-mmcv': '==2.3.6'}


def test_what_is_outside_is_named_with_the_way_out(installed: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('projects.soco.compat.host.host_name', lambda: 'openmmlab')
    table, told = installation.describe_installation()
    installation.refuse_untested(told)
    assert told == [] and 'outside' not in table and 'torch' in table
    installed.update(torch='2.16.0')
    del installed['mmdet']
    table, told = installation.describe_installation()
    assert 'outside: <2.16,>=2.11' in table
    with pytest.raises(ValueError, match=r'torch 2.16.0 \(tested: <2.16,>=2.11\); mmdet not installed '
                       r'\(tested: ==3.3.0\).*bash tools/setup_env.sh'):
        installation.refuse_untested(told)


def test_a_package_that_is_not_installed_has_no_ranges(monkeypatch: pytest.MonkeyPatch):
    def requires(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, 'requires', requires)
    with pytest.raises(ValueError, match='mmsoco is not installed.*pip install --no-deps -e'):
        installation.tested_ranges('openmmlab')


def test_this_machine_is_described():
    rows = dict(installation.machine_rows('openmmlab'))
    assert {'python', 'host', 'ops backend', 'device', 'CUDA of torch', 'driver'} <= rows.keys()
    assert rows['free disk here'].endswith('GiB')


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition('#')[0].strip() for line in (ROOT / f'requirements/{name}').open())
    return [Requirement(line) for line in lines if line]


def test_the_exact_versions_of_set_up_are_within_the_ranges():
    """For each Python; every package that is not exact by itself has an exact version."""
    exact: dict[str, list[str]] = {}
    for pin in requirements('constraints.txt'):
        (one, ) = pin.specifier
        assert one.operator == '==', pin
        exact.setdefault(pin.name, []).append(one.version)
    used = set()
    for path in sorted((ROOT / 'requirements').glob('*.txt')):
        if path.name in ('constraints.txt', 'benchmark.txt', 'onedl.txt', 'onedl_no_deps.txt'):
            continue
        for needed in requirements(path.name):
            used.add(needed.name)
            if not any(part.operator == '==' for part in needed.specifier):
                assert needed.name in exact, f'{needed.name} of {path.name} has no exact version'
            assert all(map(needed.specifier.contains, exact.get(needed.name, ()))), needed
    assert exact.keys() <= used
