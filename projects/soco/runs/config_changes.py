"""Differences between a run's config and the project's config that it inherits from."""
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ..launch.configs import CONFIGS

ABSENT = '–'  # shown for a key that a config does not have
OF_THE_PLACE = ('work_dir', 'launcher', 'local_rank', 'resume')  # not part of the experiment


class Change(NamedTuple):
    """A value that differs.

    Args:
        key (str): Dotted key.
        old (str): Old value as it is written in a config.
        new (str): New value as it is written in a config.
    """
    key: str
    old: str
    new: str


def read_dumped(text: str) -> dict[str, Any]:
    """Parse the output of `Config.dump` as data, without executing it.

    Args:
        text (str): Assignments of constants, lists, tuples, dicts and calls of `dict`.

    Returns:
        dict[str, Any]: The values. An expression of another kind becomes its source text.

    Raises:
        ValueError: If the text is not valid Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f'it cannot be read as a config: {error}') from error
    return {target.id: _value(node.value) for node in tree.body if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' \
            and not node.args and all(word.arg for word in node.keywords):
        return {word.arg: _value(word.value) for word in node.keywords}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.keywords \
            and len(node.args) == 1 and isinstance(node.args[0], ast.Dict):
        return _value(node.args[0])  # of names that are not identifiers
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


def base_files(path: str | Path) -> list[Path]:
    """Return the files of a config's `_base_`, or none if the config computes `_base_`.

    Args:
        path (str | Path): A config in Python.

    Returns:
        list[Path]: The files, relative paths resolved against the config's folder.
    """
    names = read_dumped(Path(path).read_text(encoding='utf-8')).get('_base_', [])
    names = [names] if isinstance(names, str) else names
    return [Path(path).parent / name for name in names if isinstance(name, str) and '::' not in name]


def nearest_known(path: str | Path) -> list[str]:
    """Return the nearest configs of this project that a config is or inherits from.

    Args:
        path (str | Path): A config file.

    Returns:
        list[str]: Paths relative to the project's folder of configs. Empty if the file cannot be
        read.
    """
    path = Path(path).resolve()
    if path.is_relative_to(CONFIGS):
        return [path.relative_to(CONFIGS).as_posix()]
    try:
        return [name for base in base_files(path) for name in nearest_known(base)]
    except (OSError, ValueError, RecursionError):
        return []


def known_config(name: str) -> Path | None:
    """Find a config of this project.

    Args:
        name (str): Path relative to the folder of configs or to its folder of ablations.

    Returns:
        Path | None: The file, or None if it does not exist or is outside the folder of configs.
    """
    for path in (CONFIGS / name, CONFIGS / 'ablations' / name):
        if path.suffix == '.py' and path.is_file() and path.resolve().is_relative_to(CONFIGS):
            return path.resolve()
    return None


def changes_against(config: dict[str, Any], parents: list[Path]) -> list[Change]:
    """List the values that a config changes in its parents.

    Args:
        config (dict): Output of `read_dumped`, or a config's values.
        parents (list[Path]): Configs of this project. They are executed, like every loaded config.

    Returns:
        list[Change]: The changes in the order of their keys, without keys that are not part of the
        experiment, such as `work_dir`.
    """
    old: dict[str, Any] = {}
    for parent in parents:
        old.update(config_values(parent))
    skipped = {*OF_THE_PLACE, *(['load_from'] if config.get('resume') else [])}
    old, new = ({key: value for key, value in side.items() if key not in skipped}
                for side in (old, config))
    return changes_between(old, new)


def changes_between(old: Any, new: Any) -> list[Change]:
    """List the values that differ between two configs or parts of them, in the order of their keys."""
    return [Change(key, _text(a), _text(b)) for key, a, b in _differences(old, new, '')]


def config_values(path: Path) -> dict[str, Any]:
    """Load a config of this project; return its values as plain dicts and lists."""
    return Config.fromfile(path, import_custom_modules=False)._cfg_dict.to_dict()


class _Absent:
    pass


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the key and both values of each difference.

    Dicts and lists of dicts are compared item by item, other lists as a whole. Tuples equal lists.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        pairs = [(key, old.get(key, _Absent), new.get(key, _Absent)) for key in keys]
    elif _holds_dicts(old) and _holds_dicts(new):
        pairs = [(i, old[i] if i < len(old) else _Absent, new[i] if i < len(new) else _Absent)
                 for i in range(max(len(old), len(new)))]
    else:
        if _plain(old) != _plain(new):
            yield path, old, new
        return
    for key, a, b in pairs:
        yield from _differences(a, b, f'{path}.{key}' if path else str(key))


def _holds_dicts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    text = ABSENT if value is _Absent else repr(value)
    return text if len(text) <= 400 else f'{text[:400]} …'
