"""Classes are matched by name: the list of a config against the categories of a file."""
import difflib
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from .findings import MENDED, NOTE, REFUSED, Judgement

SUBSET = ('If the list is meant to be a part of the classes, say so with '
          'metainfo=dict(classes=(...), subset=True).')
SET_LIST = 'Set metainfo=dict(classes=(...)) of the train, val and test data sets to its names, and ' \
           'num_classes of the heads to their number.'


def class_list(classes: Any) -> tuple[str, ...]:
    """Return a config's list of classes.

    Args:
        classes (Any): The value of `metainfo.classes`.

    Returns:
        tuple[str, ...]: The names.

    Raises:
        ValueError: If it is a single text, has other values than texts, or a name twice.
    """
    if isinstance(classes, str):
        raise ValueError(f'metainfo.classes is the text {classes!r}, so each of its letters would be a '
                         f'class. A list of one class has a comma: classes=({classes!r}, )')
    names = tuple(classes)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ValueError(f'metainfo.classes has {odd[0]!r}, which is not a text. Classes are matched '
                         'by their names; write them in quotes.')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f'metainfo.classes lists {twice[0]!r} more than once.')
    return names


def near(name: str, known: Collection[str]) -> str:
    """Return a question with the most similar name, or ''."""
    folded = {other.casefold().strip(): other for other in known}
    found = difflib.get_close_matches(name.casefold().strip(), folded, 1)
    return f' (did you mean {folded[found[0]]!r}?)' if found else ''


def match_classes(judged: Judgement, classes: Sequence[str], subset: bool = False,
                  training: bool = True, compared: bool = False) -> None:
    """Put the categories of a COCO file in the order of a list of classes.

    MMDetection and pycocotools number the classes in the order of `categories`, whatever the order of
    the list: with another order, objects would get the names of other classes.

    Args:
        judged (Judgement): A COCO file in which nothing is refused yet; it is changed in place.
        classes (Sequence[str]): The names, in the order of the detector's outputs.
        subset (bool): Whether the list is meant to be a part of the classes. Objects of other classes
            are then left out and counted; a file for evaluation may lack a class. Defaults to False.
        training (bool): Whether the file is for training. Defaults to True.
        compared (bool): Whether the list is that of the file to train on, as in a comparison: a file
            for evaluation may then lack a class. Defaults to False.
    """
    content = judged.content
    advice = (f'The classes are those of the file to train on: {", ".join(map(repr, classes[:5]))}'
              f'{", …" if len(classes) > 5 else ""}. Annotate the same classes in both files.'
              if compared else f'{SET_LIST} {SUBSET}')
    _rename(judged, classes)
    categories = content['categories']
    by_name = {row['name']: row for row in categories}
    used = Counter(row['category_id'] for row in content['annotations'])
    lacking = [name for name in classes if name not in by_name]
    more = [row for row in categories if row['name'] not in set(classes)]
    filled = [row for row in more if used[row['id']]]
    has = ', '.join(map(repr, list(by_name)[:5])) + (', …' if len(by_name) > 5 else '')
    texts = [repr(name) + near(name, [row['name'] for row in more]) for name in lacking]
    if lacking and (subset or compared) and not training:
        free = max((i for i in (row['id'] for row in categories) if isinstance(i, int)), default=0) + 1
        categories += [dict(id=free + i, name=name) for i, name in enumerate(lacking)]
        judged.add(MENDED, 'classes of the list without a category, added without objects', texts)
    else:
        judged.add(REFUSED, f"classes, of the config's {len(classes)}, that are not among its "
                   f'{len(categories)} categories', texts, f'It has {has}. {advice}')
    objects = sum(used[row['id']] for row in more)
    texts = [f'{row["name"]!r} with {used[row["id"]]} objects' + near(row['name'], lacking)
             for row in filled]
    if subset:
        judged.add(NOTE, 'objects of other classes, left out as the config says (subset)', texts,
                   count=objects)
    else:
        judged.add(REFUSED, "categories with objects that are not among the config's classes", texts,
                   advice)
    if judged.of(REFUSED):
        return
    order = {name: i for i, name in enumerate(classes)}
    names = [row['name'] for row in categories if row['name'] in order]
    categories.sort(key=lambda row: order.get(row['name'], len(order)))
    if names != list(classes):
        told = ', '.join(names[:4]) + (', …' if len(names) > 4 else '')
        judged.add(MENDED, "order of the categories, made that of the config's classes: the ids follow "
                   'the names', [f'in the file: {told}'])


def _rename(judged: Judgement, classes: Sequence[str]) -> None:
    """Give categories the config's spelling if only spaces at the ends or the normal form differ."""
    rows = judged.content['categories']
    names = {row['name'] for row in rows}
    missing = {plain(name): name for name in classes if name not in names}
    changed = []
    for row in rows:
        other = missing.pop(plain(row['name']), None) if row['name'] not in classes else None
        if other is not None:
            changed.append(f'{row["name"]!r} is {other!r}')
            row['name'] = other
    judged.add(MENDED, "class names that differ from the config's in spaces or Unicode normal form",
               changed)


def plain(name: str) -> str:
    """Return a name without spaces at its ends, in the composed normal form."""
    return unicodedata.normalize('NFC', name).strip()


def compare_lists(one: Sequence[str], other: Sequence[str], first: str, second: str) -> str:
    """Return how two lists of classes differ.

    Args:
        one (Sequence[str]): A list of names.
        other (Sequence[str]): Another one.
        first (str): What has the first list, for the text.
        second (str): What has the second list.

    Returns:
        str: The names that only one of them has; or that the order differs; or ''.
    """
    parts = []
    for what, names, others in ((first, one, other), (second, other, one)):
        only = [name for name in names if name not in others]
        if only:
            parts.append(f'Only {what} has {", ".join(map(repr, only[:5]))}'
                         + (f' and {len(only) - 5} more' if len(only) > 5 else ''))
    if not parts and list(one) != list(other):
        i = next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)
        parts = [f'The order differs: class {i} is {one[i]!r} for {first}, {other[i]!r} for {second}']
    return '. '.join(parts)
