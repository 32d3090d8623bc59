"""What a COCO file of instances may be mended in, and what it is refused for; the photos aside."""
from collections import Counter
from pathlib import Path
from typing import Any

from .findings import MENDED, NOTE, REFUSED, Judgement
from .masks import judge_masks
from .objects import judge_places, judge_values
from .photos import PhotoTree, settle_names, settle_sizes
from .read import no_collection, read_json, what_instead
from .values import LARGEST, as_id, as_number, label, shown

TABLES = ('images', 'annotations', 'categories')


def read_coco(path: str | Path, masks: bool = False, photos: PhotoTree | None = None,
              **options: Any) -> Judgement:
    """Read a COCO json of instances and judge it.

    Args:
        path (str | Path): The json.
        masks (bool): See `judge_coco`. Defaults to False.
        photos (PhotoTree, optional): See `judge_coco`. Defaults to None.
        **options: See `judge_coco`.

    Returns:
        Judgement: The content, mended in memory, and what was found. Call `accept` to stop where
        something is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a json file, or truncated.
    """
    return judge_coco(read_json(path), path, masks, photos, **options)


def judge_coco(content: Any, path: str | Path, masks: bool = False, photos: PhotoTree | None = None,
               sizes: bool = False, **options: Any) -> Judgement:
    """Judge the content of a COCO json of instances: mend what has one meaning, refuse what has none.

    Args:
        content (Any): The content; it is changed in place.
        path (str | Path): The file, for messages.
        masks (bool): Whether objects without a mask are refused. Defaults to False.
        photos (PhotoTree, optional): The photos, to compare names and sizes with. Defaults to None.
        sizes (bool): Whether images without width and height are refused if no photo tells them.
            Defaults to False.
        **options: See `photos.settle_sizes`.

    Returns:
        Judgement: What was found.
    """
    judged = Judgement(str(path), content)
    with no_collection():
        _judge_all(judged, masks, photos, sizes, options)
    return judged


def _judge_all(judged: Judgement, masks: bool, photos: PhotoTree | None, sizes: bool,
               options: dict) -> None:
    _judge_tables(judged)
    if judged.of(REFUSED):
        return
    content = judged.content
    images, annotations, categories = (content[table] for table in TABLES)
    _judge_ids(judged, images, annotations, 'images', 'image_id')
    _judge_ids(judged, categories, annotations, 'categories', 'category_id')
    _judge_names(judged)
    _judge_sizes(judged)
    if judged.of(REFUSED):
        return
    _judge_categories(judged)
    judge_values(judged)
    if photos is not None:
        settle_names(judged, photos)
        if not judged.of(REFUSED):
            settle_sizes(judged, photos, **options)
    elif sizes:
        judged.add(REFUSED, 'images without width and height', [
            f'{row["file_name"]!r} (id {row["id"]!r})' for row in images
            if 'width' not in row or 'height' not in row],
            'Detectors need them. The photos tell them: python tools/check_annotations.py JSON '
            '--images DIR --fix OUT.json')
    judge_masks(judged, annotations, masks)
    if not judged.of(REFUSED):
        judge_places(judged)
        _count(judged)


def _judge_tables(judged: Judgement) -> None:
    content = judged.content
    lacking = [table for table in TABLES if not isinstance(content, dict) or table not in content]
    advice = ('It should be a COCO instances file, such as instances_train2017.json, with '
              f'{", ".join(TABLES)}. {what_instead(content)}').strip()
    judged.add(REFUSED, 'missing keys', [f'no key {table!r}' for table in lacking], advice)
    for table in () if lacking else TABLES:
        rows = content[table]
        if not isinstance(rows, list):
            judged.add(REFUSED, 'tables that are not a list',
                       [f'{table} should be a list, but is a {type(rows).__name__}'], advice)
        elif set(map(type, rows)) - {dict}:
            judged.add(REFUSED, f'entries of {table} that are not an object', [
                f'{table}[{i}] should be an object, but is a {type(row).__name__}'
                for i, row in enumerate(rows) if not isinstance(row, dict)])


def _judge_ids(judged: Judgement, rows: list[dict], annotations: list[dict], table: str,
               key: str) -> None:
    """Check that ids are unique and that annotations refer to them; numbers as text become numbers."""
    bad = [f'{table}[{i}] has no id, or an id that is not an integer or a text: {shown(row.get("id"))}'
           for i, row in enumerate(rows) if as_id(row.get('id')) is None]
    judged.add(REFUSED, f'entries of {table} without an id', bad, 'Give each a number of its own.')
    if bad:
        return
    ids = [row['id'] for row in rows]
    known = {row['id']: row for row in rows}
    types = set(map(type, ids)) | {type(row.get(key)) for row in annotations}
    if types - {int}:  # ids as text or as floats
        whole = [as_id(value) for value in ids]
        if len(set(whole)) == len(set(ids)):  # no two become one
            changed = _rewrite(rows, 'id') + _rewrite(annotations, key)
            judged.add(MENDED, f'{table[:-3] + "y" if table == "categories" else table[:-1]} ids that '
                       'are numbers in another form, written as integers', changed, count=len(changed))
            known = {row['id']: row for row in rows}
    _judge_repeated(judged, rows, table, known)
    if types <= {int} and {row[key] for row in annotations} <= set(known):
        return
    missing = [(i, row) for i, row in enumerate(annotations)
               if not isinstance(row.get(key), (int, str)) or row[key] not in known
               or isinstance(row[key], bool)]
    judged.add(REFUSED, f'annotations with the {key} of no entry of {table}', [
        f'{label(i, row)} has ' + (f'{key} {shown(row[key])}' if key in row else f'no key {key!r}')
        for i, row in missing[:3]],
        f'Add the missing entries of {table}, or remove these annotations; or create or download the '
        'file again.', len(missing))


def _rewrite(rows: list[dict], key: str) -> list[str]:
    changed = []
    for row in rows:
        value = row.get(key)
        plain = as_id(value)
        if plain is not None and type(plain) is not type(value):
            row[key] = plain
            changed.append(f'{key} {shown(value)}')
    return changed


def _judge_repeated(judged: Judgement, rows: list[dict], table: str, known: dict) -> None:
    """Refuse an id that two different entries have; of two equal entries one is kept."""
    if len(known) == len(rows):
        return
    first: dict[Any, tuple[int, dict]] = {}
    kept, same, other = [], [], []
    for i, row in enumerate(rows):
        at, before = first.setdefault(row['id'], (i, row))
        if before is row:
            kept.append(row)
            continue
        name = shown(row.get('file_name' if table == 'images' else 'name'))
        text = f'{table}[{i}] has the id {row["id"]!r}, which an earlier one has too ({table}[{at}])'
        (same if row == before else other).append(f'{text}: {name}')
    rows[:] = kept if not other else rows
    judged.add(MENDED, f'entries of {table} that are listed twice, kept once', same)
    judged.add(REFUSED, f'entries of {table} with an id of another one', other,
               'Ids must be unique; files that were merged need new ids, in annotations as well.')


def _judge_names(judged: Judgement) -> None:
    """Check that each image has a file name of its own."""
    images = judged.content['images']
    others = ('filename', 'path', 'coco_url', 'name')
    bad = [f'images[{i}] (id {shown(row.get("id"))}) has no file_name'
           + next((f', but {key!r}' for key in others if key in row), '')
           for i, row in enumerate(images)
           if not isinstance(row.get('file_name'), str) or not row['file_name'].strip()]
    judged.add(REFUSED, 'images without a file name', bad,
               'file_name is the path of the photo, relative to the folder of the photos.')
    names = Counter(row['file_name'] for row in images) if not bad else Counter()
    if len(names) < len(images) and not bad:
        twice = {name for name, count in names.items() if count > 1}
        judged.add(REFUSED, 'photos that are listed under several ids', [
            f'{name!r} with the ids '
            + ', '.join(repr(row['id']) for row in images if row['file_name'] == name)
            for name in sorted(twice)[:3]],
            'Training would see each time only a part of its objects: join the entries.', len(twice))


def _judge_sizes(judged: Judgement) -> None:
    """Turn sizes that are whole numbers in another form into integers; remove those that are none."""
    changed = []
    for i, row in enumerate(judged.content['images']):
        for key in ('width', 'height'):
            value = row.get(key)
            if type(value) is int and 0 < value < LARGEST:
                continue
            number = as_number(value)
            row.pop(key, None)
            if number is not None and 1 <= number < LARGEST and number == int(number):
                row[key] = int(number)
                changed.append(f'images[{i}] (id {shown(row.get("id"))}) has the {key} {shown(value)}')
    judged.add(MENDED, 'sizes of images in another form, written as integers', changed)


def _judge_categories(judged: Judgement) -> None:
    """Give categories names that are text, and join entries of one name."""
    content = judged.content
    categories = content['categories']
    numbers = [row for row in categories if type(row.get('name')) in (int, float)]
    judged.add(MENDED, 'category names that are numbers, taken as text',
               [f'category {row["id"]!r}: {row["name"]!r}' for row in numbers])
    for row in numbers:
        row['name'] = str(row['name'])
    bad = [f'category {row["id"]!r}: {shown(row.get("name"))}' for row in categories
           if not isinstance(row.get('name'), str) or not row['name'].strip()]
    judged.add(REFUSED, 'categories without a name', bad, 'Classes are matched by their names.')
    if not categories:
        judged.add(REFUSED, 'empty tables', ['categories is empty'], 'List the classes there.')
    if not bad and len({row['name'] for row in categories}) < len(categories):
        _join_categories(judged)


def _join_categories(judged: Judgement) -> None:
    content = judged.content
    used = Counter(row['category_id'] for row in content['annotations'])
    by_name: dict[str, list[dict]] = {}
    for row in content['categories']:
        by_name.setdefault(row['name'], []).append(row)
    moved, dropped = {}, []
    for name, rows in by_name.items():
        if len(rows) == 1:
            continue
        text = f'{name!r} with the ids ' + ', '.join(repr(row['id']) for row in rows)
        filled = [row for row in rows if used[row['id']]] or rows[:1]
        if len({row.get('supercategory') for row in filled}) > 1:
            judged.add(REFUSED, 'class names of several categories with different supercategories',
                       [text], 'Classes are matched by name: rename all but one of them.')
            continue
        dropped.append(text)
        moved.update({row['id']: filled[0]['id'] for row in rows if row is not filled[0]})
    if dropped:
        content['categories'][:] = [r for r in content['categories'] if r['id'] not in moved]
        for row in content['annotations']:
            row['category_id'] = moved.get(row['category_id'], row['category_id'])
    judged.add(MENDED, 'class names of several categories, joined', dropped)


def _count(judged: Judgement) -> None:
    """Note what training leaves out, and what is there without objects."""
    content = judged.content
    used = {row['image_id'] for row in content['annotations']}
    empty = [row for row in content['images'] if row['id'] not in used]
    judged.add(NOTE, 'photos without an object', [shown(row['file_name']) for row in empty[:3]],
               count=len(empty))
    classes = {row['category_id'] for row in content['annotations']}
    judged.add(NOTE, 'classes without an object',
               [f'{row["name"]!r} (id {row["id"]!r})' for row in content['categories']
                if row['id'] not in classes])
