"""Values of `--cfg-options`: text that takes the type of the value that it replaces.

docs/recipes.md has the rules for users.
"""
import copy
import math
import re
from typing import Any

MISSING: Any = object()  # in place of the old value of a new key
QUOTES = ('"', "'")
BRACKETS = {'[': ']', '(': ')', '{': '}'}
# Keys that contain text where they have no value yet: paths and names.
_TEXT_KEY = re.compile(r'(.*_)?(root|dir|file|path|name|type|scope)|(file|img|seg)_prefix|images|'
                       r'proposals|annotations|checkpoint|load_from|mode|source')
# Keys that count something: a whole number stays one. Other whole numbers, such as a weight of 1, may
# become fractions.
_COUNT_KEY = re.compile(r'(.*_)?(epochs?|iters?|size|num|workers|interval|counts?|depth|seed|'
                        r'channels|stages?|groups|steps?|milestones|repeat|times|index|indices|patience|width|'
                        r'height|level|levels|ckpts|classes|per_img|pre|post)|num_.*|max_keep_.*')


def read_value(key: str, text: str, old: Any = MISSING) -> Any:
    """Convert the text of an option to the type of the value that it replaces.

    Args:
        key (str): Dotted key; a final ':' (KEY:=VALUE) means any type, whatever the old value is.
        text (str): The value as the user wrote it.
        old (Any): The value that it replaces. Defaults to `MISSING`: the key is new.

    Returns:
        Any: The value.

    Raises:
        ValueError: If the text does not fit the type; the message contains key, value and type.
    """
    try:
        if key.endswith(':'):
            return _read_any(text)
        name = next((part for part in reversed(key.split('.')) if not part.isdigit()), key)
        return _read_like(name, text, old)
    except _Misfit as misfit:
        raise ValueError(
            f'--cfg-options {key}={text}: {misfit} is expected, as the config has '
            f'{_shorten(old)} there. To set a value of another type, write {key}:=VALUE.') from None


def set_value(node: Any, parts: list[str], value: Any) -> Any:
    """Return a copy of a nested config in which the value at a dotted key is replaced.

    A dict is merged into a dict, as in MMEngine's configs: its keys replace those of the same name, and
    `_delete_=True` among them removes all others.

    Args:
        node (Any): Dict, list or tuple.
        parts (list[str]): The parts of the key; indices for lists and tuples.
        value (Any): The new value.

    Returns:
        Any: The copy. Parts on other branches are shared with `node`.
    """
    if not parts:
        if isinstance(value, dict) and isinstance(node, dict):
            value = dict(value)
            merged = {} if value.pop('_delete_', False) else node
            for name, inner in value.items():
                merged = set_value(merged, [name], inner)
            return merged
        return value
    first: Any = parts[0]
    if isinstance(node, (list, tuple)):
        items: Any = list(node)
        first = int(first)
    else:
        items = copy.copy(node)
    old = items[first] if not isinstance(items, dict) or first in items else None
    items[first] = set_value(old, parts[1:], value)
    return type(node)(items)


class _Misfit(Exception):
    """The text is not of the expected type, which the message names."""


def _read_like(name: str, text: str, old: Any) -> Any:
    """Convert the text of a whole value."""
    if isinstance(old, str) or (_is_unknown(old) and _TEXT_KEY.fullmatch(name)):
        return None if text == 'None' else _unquote(text)
    if _is_unknown(old):
        return _read_any(text)
    word = _unquote(text.strip())
    if word == 'None':
        return None
    if isinstance(old, dict):
        found = _read_whole(word, old, name) if word.startswith('{') else MISSING
        if found is MISSING:
            raise _Misfit("a dict such as {'a': 1}")
        return found
    if isinstance(old, (list, tuple)):
        return _read_sequence(word, old, name)
    return _read_word(word, old, name)


def _read_sequence(word: str, old: list | tuple, name: str) -> list | tuple:
    """Read a list or tuple; the outer brackets may be missing."""
    reason = _Misfit(f'{_expected(old)} such as [a,b] or a,b')
    if word.startswith(('[', '(')):
        try:
            found = _read_whole(word, old, name)
            if found is not MISSING:
                return found
        except _Misfit as misfit:
            reason = misfit
    if ',' in word or (word and isinstance(old, list)):  # one value makes a list, but no tuple
        try:
            found = _read_whole(f'[{word}]', old, name)
            if found is not MISSING:
                return found
        except _Misfit as misfit:
            reason = reason if word.startswith(('[', '(')) else misfit
    raise reason


def _read_any(text: str) -> Any:
    """Read a literal; all other text stays text.

    A comma list without brackets has no spaces, as MMEngine prescribes: 'Photos, 2024' is text.
    """
    word = text.strip()
    if word[:1] in (*BRACKETS, *QUOTES):
        found = _read_whole(word)
        if found is not MISSING:
            return found
    elif ',' in word and not re.search(r'\s', word):
        found = _read_whole(f'[{word}]')
        return text if found is MISSING else found
    found = _read_word(word, MISSING, '')
    return text if isinstance(found, str) else found


def _read_whole(text: str, old: Any = MISSING, name: str = '') -> Any:
    """Read one bracketed or quoted value; return MISSING if it ends before the text or is none."""
    try:
        value, at = _read_part(text, 0, '', old, name)
    except (_Unreadable, RecursionError):
        return MISSING
    return value if at == len(text) else MISSING


class _Unreadable(Exception):
    """Brackets or quotes do not match."""


def _read_part(text: str, at: int, ends: str, old: Any, name: str) -> tuple[Any, int]:
    """Read the value that starts at a position.

    Args:
        text (str): The whole text.
        at (int): The position.
        ends (str): The characters that end the value outside of brackets and quotes.
        old (Any): A value of the type that is expected, or MISSING.
        name (str): The last part of the key.

    Returns:
        tuple[Any, int]: The value, and the position behind it and the spaces after it.
    """
    at = _skip(text, at)
    first = text[at:at + 1]
    if first and first in BRACKETS:
        return _read_bracket(text, at, old, name)
    if first and first in QUOTES:
        close = re.compile(f'{first}(.*?){first}' + rf'\s*(?=[{re.escape(ends)}]|$)' if ends else
                           f'{first}(.*){first}$', re.S).match(text, at)
        if close:
            inner = close[1] if _is_unknown(old) else _read_word(close[1], old, name)
            return inner, close.end()
    end = re.compile(f'[{re.escape(ends)}]').search(text, at) if ends else None
    stop = end.start() if end else len(text)
    return _read_word(text[at:stop].strip(), old, name), stop


def _read_bracket(text: str, at: int, old: Any, name: str) -> tuple[Any, int]:
    """Read a list, a tuple or a dict; the elements have the type that all old elements have."""
    mapping, close = text[at] == '{', BRACKETS[text[at]]
    sequence = list if text[at] == '[' else tuple
    if isinstance(old, (list, tuple)) and not mapping:
        sequence = type(old)
    elif not _is_unknown(old) and not (mapping and isinstance(old, dict)):
        raise _Misfit(_expected(old))
    example = old[0] if isinstance(old, (list, tuple)) and len({type(x) for x in old}) == 1 else MISSING
    found: Any = {} if mapping else []
    at = _skip(text, at + 1)
    while not text.startswith(close, at):
        if mapping:
            key, at = _read_part(text, at, ':', '', name)
            if not text.startswith(':', at):
                raise _Unreadable
            inner = old.get(key, MISSING) if isinstance(old, dict) else MISSING
            if _is_unknown(inner) and _TEXT_KEY.fullmatch(str(key)):
                inner = ''
            try:
                found[key], at = _read_part(text, at + 1, ',' + close, inner, str(key))
            except _Misfit as misfit:
                raise _Misfit(f'{misfit} for {key}') from None
        else:
            value, at = _read_part(text, at, ',' + close, example, name)
            found.append(value)
        if text.startswith(',', at):
            at = _skip(text, at + 1)
        elif not text.startswith(close, at):
            raise _Unreadable
    return (found if mapping else sequence(found)), _skip(text, at + 1)


def _read_word(word: str, old: Any, name: str) -> Any:
    """Convert a word without brackets and quotes to the type of `old`."""
    if word == 'None':
        return None
    if _is_unknown(old):
        if re.fullmatch(r'[+-]?(0|[1-9]\d*)', word, re.A):
            return int(word)
        if re.fullmatch(r'[+-]?((\d+\.\d*|\.\d+)(e[+-]?\d+)?|\d+e[+-]?\d+|inf)|nan', word, re.A | re.I):
            return float(word)
        return {'true': True, 'false': False}.get(word.lower(), word)
    if isinstance(old, bool):
        if word.lower() not in ('true', 'false', '1', '0'):
            raise _Misfit(_expected(old))
        return word.lower() in ('true', '1')
    if isinstance(old, (int, float)):
        try:
            number = int(word) if re.fullmatch(r'[+-]?[\d_]+', word) else float(word)
        except ValueError:
            raise _Misfit(_expected(old)) from None
        if math.isnan(number):
            raise _Misfit(_expected(old))
        if isinstance(old, float) or isinstance(number, int):
            return type(old)(number)
        if number.is_integer():
            return int(number)
        if _COUNT_KEY.fullmatch(name):
            raise _Misfit(_expected(old))
        return number
    if isinstance(old, (list, tuple, dict)):
        raise _Misfit(_expected(old))
    return word


def _is_unknown(value: Any) -> bool:
    return value is None or value is MISSING


def _expected(old: Any) -> str:
    """Return the name of the type of a value, for messages."""
    names = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
             tuple: 'a tuple', list: 'a list'}
    return names.get(type(old), 'a dict')


def _unquote(text: str) -> str:
    """Remove a pair of quotes around a whole text, as MMEngine does; others belong to the text."""
    quoted = len(text) > 1 and text[0] in QUOTES and text[-1] == text[0] not in text[1:-1]
    return text[1:-1] if quoted else text


def _skip(text: str, at: int) -> int:
    """Return the position of the next character that is no space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
