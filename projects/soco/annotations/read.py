"""The one reader of json files and lists that a user brings: byte order marks, encodings, errors."""
import contextlib
import gc
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Keys that tell the files of other tools apart, and what to do with them.
_OTHERS = (
    ({'shapes', 'imagePath'}, "It looks like labelme's own format: convert it with labelme2coco."),
    ({'_via_settings'}, 'It looks like a project of VIA: export annotations in COCO format there.'),
    ({'features', 'type'}, 'It looks like GeoJSON.'),
    ({'metadata', 'asset', 'regions'}, "It looks like VoTT's own format: export COCO there."),
)


def read_json(path: str | Path) -> Any:
    """Read a json file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path (str | Path): The file.

    Returns:
        Any: Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a json file, or truncated; the message has the file and the place.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no file {path}.')
    return parse_json(Path(path).read_bytes(), path)


def parse_json(data: bytes, path: str | Path) -> Any:
    """Parse the content of a json file.

    Args:
        data (bytes): The content.
        path (str | Path): The file, for messages.

    Returns:
        Any: The values.

    Raises:
        ValueError: If it is not a json file, or truncated; the message has the file and the place.
    """
    try:
        with no_collection():
            return json.loads(data)
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not in UTF-8: {error.reason} at byte {error.start}. Save it as '
                         'UTF-8.') from error
    except RecursionError as error:
        raise ValueError(f'{path} is nested too deeply for a json of annotations.') from error
    except ValueError as error:
        raise ValueError(f'{path} is not a json file, or it is truncated: {error}.') from error


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Pause the garbage collector, which would go through millions of small dicts again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_lines(path: str | Path) -> list[str]:
    """Read a text file of one name per line, with or without a byte order mark.

    Args:
        path (str | Path): The file.

    Returns:
        list[str]: Its lines without spaces at both ends; empty ones are left out.

    Raises:
        ValueError: If it is not a text file.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not a text file in UTF-8: {error.reason} at byte {error.start}. '
                         'Save it as UTF-8.') from error
    return [line.strip() for line in re.split('\r\n|\r|\n', text) if line.strip()]


def what_instead(content: Any) -> str:
    """Return what a json that is not a COCO file seems to be, or ''."""
    if isinstance(content, dict):
        return next((text for keys, text in _OTHERS if keys <= set(content)), '')
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if 'score' in content[0]:
            return 'It looks like predictions (a COCO result file), not like annotations.'
        if {'data', 'annotations'} <= set(content[0]):
            return "It looks like Label Studio's own format: export COCO there."
    return ''


def read_categories(path: str | Path) -> list[str]:
    """Read the names of the classes of a COCO json, in its order, each once.

    Args:
        path (str | Path): The json.

    Returns:
        list[str]: The names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no list of categories with names.
    """
    content = read_json(path)
    rows = content.get('categories') if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(
            isinstance(row, dict) and isinstance(row.get('name'), (str, int)) for row in rows):
        raise ValueError(f'{path} has no list "categories" with a "name" each: it is not a COCO '
                         f'json of annotations. {what_instead(content)}'.strip())
    return list(dict.fromkeys(str(row['name']) for row in rows))
