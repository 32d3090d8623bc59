"""VOC-style annotations: one XML file for each photo, and a list of their names."""
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..files import write_whole
from .classes import SET_LIST, SUBSET, near
from .findings import MENDED, NOTE, REFUSED, Judgement
from .read import read_lines
from .values import as_number, shown

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def judge_voc(path: str | Path, xml_dir: str | Path, photo_dir: str | Path, classes: Sequence[str],
              subset: bool = False) -> Judgement:
    """Judge a VOC-style data set: list, XML files and photos.

    Args:
        path (str | Path): The list of names.
        xml_dir (str | Path): Folder of the XML files.
        photo_dir (str | Path): Folder of the photos, which MMDetection expects to end in .jpg.
        classes (Sequence[str]): The names of the classes.
        subset (bool): Whether objects of other classes are left out on purpose. Defaults to False.

    Returns:
        Judgement: What was found; its content is the list of names.

    Raises:
        ValueError: If the list is not a text file.
    """
    names = read_lines(path)
    judged = Judgement(str(path), names)
    plain = Path(path).read_bytes().replace(b'\r\n', b'\n').removesuffix(b'\n')
    if plain != '\n'.join(names).encode():
        judged.add(MENDED, 'lists with a byte order mark, empty lines or spaces, read without them',
                   [shown(os.fspath(path))])
    if not names:
        judged.add(REFUSED, 'empty lists', [shown(os.fspath(path))], 'List one name on each line.')
    twice = [name for name, count in Counter(names).items() if count > 1]
    judged.add(NOTE, 'names that are listed more than once, and used as often', map(shown, twice))
    _judge_files(judged, xml_dir, photo_dir)
    if not judged.of(REFUSED):
        _judge_objects(judged, Path(xml_dir), classes, subset)
    return judged


def _judge_files(judged: Judgement, xml_dir: str | Path, photo_dir: str | Path) -> None:
    xmls, photos = (set(os.listdir(folder)) if os.path.isdir(folder) else set()
                    for folder in (xml_dir, photo_dir))
    columns = [name for name in judged.content if len(name.split()) > 1 and f'{name}.xml' not in xmls]
    judged.add(REFUSED, 'lines with several columns', map(shown, columns),
               'A list has one name on each line; lists of one class (car_train.txt) do not serve.')
    lacking = [name for name in judged.content if f'{name}.xml' not in xmls and name not in columns]
    judged.add(REFUSED, f'names without an XML file in {xml_dir}', [f'{name}.xml' for name in lacking],
               'The list has names without suffix.')
    stems: dict[str, str] = {}
    for name in sorted(photos):
        stems.setdefault(name.rpartition('.')[0], name)
    gone = [name for name in judged.content if f'{name}.jpg' not in photos and name not in columns]
    judged.add(REFUSED, f'photos that are not in {photo_dir}', [
        f'{name}.jpg' + (f', but {stems[name]}' if name in stems else '') for name in gone],
        'MMDetection reads photos of VOC-style data from names that end in .jpg.')


def _judge_objects(judged: Judgement, folder: Path, classes: Sequence[str], subset: bool) -> None:
    """Judge the objects of all XML files."""
    bad, sizes, faults = [], [], []
    unknown: dict[str, list[str]] = {}
    found: Counter = Counter()
    for name in judged.content:
        file = folder / f'{name}.xml'
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            bad.append(f'{file} ({error})')
            continue
        if root.find('size') is not None and not all(
                (as_number(root.findtext(f'size/{key}')) or 0) >= 1 for key in ('width', 'height')):
            sizes.append(f'{file}: {root.findtext("size/width")} x {root.findtext("size/height")}')
        for i, thing in enumerate(root.findall('object')):
            title = thing.findtext('name') or ''
            found[title] += 1
            texts = [thing.findtext(f'bndbox/{key}') for key in CORNERS]
            box = list(map(as_number, texts))
            if None in box or box[2] <= box[0] or box[3] <= box[1]:
                faults.append(f'{file}, object {i + 1} ({title!r}): '
                              + ', '.join(f'{key} {text}' for key, text in zip(CORNERS, texts)))
            if title not in classes:
                unknown.setdefault(title, []).append(str(file))
    judged.add(REFUSED, 'XML files that cannot be read', bad, 'Export them again.')
    judged.add(REFUSED, 'sizes that are not numbers above 0', sizes,
               'Correct <size>, or remove it: it is read from the photo then.')
    judged.add(REFUSED, 'objects whose box is not four numbers, the first corner before the second',
               faults, 'Correct the <bndbox>, or remove the object.')
    texts = [f'{title!r}{near(title, classes)} in {files[0]}'
             + (f' and {len(files) - 1} more' if len(files) > 1 else '')
             for title, files in unknown.items()]
    if subset:
        judged.add(NOTE, 'objects of other classes, left out as the config says (subset)', texts,
                   count=sum(map(len, unknown.values())))
    else:
        judged.add(REFUSED, "names of objects that are not among the config's classes", texts,
                   f'Its classes are {", ".join(map(repr, classes[:5]))}'
                   f'{", …" if len(classes) > 5 else ""}. {SET_LIST} {SUBSET}')
    judged.add(NOTE, 'classes without an object', [repr(name) for name in classes if not found[name]])


def write_list(judged: Judgement, folder: str | Path) -> str:
    """Return a list that MMDetection reads: the file itself, or a mended copy in a folder.

    Args:
        judged (Judgement): What `judge_voc` found.
        folder (str | Path): The folder for the copy.

    Returns:
        str: The path of the list.
    """
    if not judged.mended:
        return os.path.abspath(judged.path)
    # one name for each list: trainval.txt of two years are two lists
    parts = Path(judged.path).absolute().parts[-4:]
    path = Path(folder).absolute() / '_'.join(part.strip('/') for part in parts)
    write_whole(path, ('\n'.join(judged.content) + '\n').encode())
    return str(path)
