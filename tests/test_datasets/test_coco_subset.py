"""Tests of COCO subsets: the chosen images, the kept content and the rejected files."""
import copy
import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from scripts import PYTHON

from projects.soco import __version__
from projects.soco.datasets.coco_subset import (
    choose_images,
    default_output,
    subset_coco,
    write_subset,
)

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/coco_subset.py'
IDS = st.sets(st.one_of(st.integers(), st.text(max_size=8)), min_size=1, max_size=60)
PERCENT = st.floats(0, 100, exclude_min=True)
SEEDS = st.integers(0, 2**32)


def coco(images: int = 40) -> dict:
    """Return a data set with unsorted images, 0 to 2 objects per image and an unused class."""
    ids = random.Random(0).sample(range(1000, 9000), images)
    annotations = [dict(id=10 * i + k, image_id=image, category_id=k + 1, bbox=[1, 2, 3, 4],
                        area=12, iscrowd=0) for i, image in enumerate(ids) for k in range(i % 3)]
    return dict(
        info=dict(year=2017, contributor='somebody'), licenses=[dict(id=1, name='free')],
        images=[dict(id=i, file_name=f'{i}.jpg', width=64, height=48, license=1) for i in ids],
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in enumerate(['cat', 'dog', 'unicorn'], 1)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / 'instances_train2017.json'
    path.write_text(json.dumps(coco()))
    return path


@given(IDS, PERCENT, SEEDS, st.randoms(use_true_random=False))
def test_the_choice_depends_on_ids_and_seed_only(ids, percent, seed, rng) -> None:
    shuffled = list(ids)
    rng.shuffle(shuffled)
    chosen = choose_images(shuffled, percent, seed)
    assert chosen == choose_images(sorted(ids, key=repr), percent, seed)
    assert chosen <= ids
    assert len(chosen) == max(1, round(len(ids) * percent / 100))


@given(IDS, PERCENT, PERCENT, SEEDS)
def test_a_smaller_share_lies_within_a_larger(ids, one, other, seed) -> None:
    small, large = (choose_images(ids, p, seed) for p in sorted((one, other)))
    assert small <= large


def test_the_5_percent_are_among_the_10_percent() -> None:
    ids = range(1000)
    small, large = choose_images(ids, 5), choose_images(ids, 10)
    assert len(small) == 50 and len(large) == 100 and small < large


def test_the_choice_never_changes_between_versions() -> None:
    """The expected ids are those whose text 'seed:id' has the smallest sums by sha256sum."""
    assert choose_images(range(1000), 1) == {46, 87, 282, 306, 366, 392, 404, 864, 923, 942}


def test_another_seed_draws_other_images() -> None:
    shared = choose_images(range(1000), 10, 0) & choose_images(range(1000), 10, 1)
    assert len(shared) < 30  # 10 expected


def test_every_image_is_as_likely_as_another() -> None:
    drawn = [i for seed in range(400) for i in choose_images(range(20), 25, seed)]
    assert all(70 < drawn.count(i) < 130 for i in range(20))  # 100 expected, standard deviation 8.7


@given(st.integers(1, 60), PERCENT, SEEDS)
def test_the_subset_is_whole_and_nothing_else(images, percent, seed) -> None:
    content = coco(images)
    before = copy.deepcopy(content)
    subset = subset_coco(content, percent, seed, 'some/folder/all.json')
    assert content == before
    chosen = choose_images({row['id'] for row in content['images']}, percent, seed)
    assert subset['images'] == [row for row in content['images'] if row['id'] in chosen]
    assert subset['annotations'] == [r for r in content['annotations'] if r['image_id'] in chosen]
    for key in ('licenses', 'categories'):
        assert subset[key] == content[key]
    assert subset['info'] == {**content['info'], 'subset': dict(
        source='all.json', percent=percent, seed=seed, made_by=f'mmsoco {__version__}')}


def test_all_images_are_all_there_is() -> None:
    content, subset = coco(), subset_coco(coco(), 100, 3, 'all.json')
    subset['info'].pop('subset')
    assert subset == content


def test_keys_of_other_makers_stay_and_info_may_be_missing() -> None:
    content = {**coco(), 'type': 'instances'}
    del content['info']
    subset = subset_coco(content, 5, 0, 'all.json')
    assert subset['type'] == 'instances' and list(subset['info']) == ['subset']


@pytest.mark.parametrize('percent', [0, -5, 100.1, float('nan'), float('inf')])
def test_shares_out_of_range_are_refused_before_reading(tmp_path: Path, percent) -> None:
    with pytest.raises(ValueError, match='percent must be above 0 and at most 100'):
        write_subset(tmp_path / 'not_there.json', tmp_path / 'out.json', percent)
    with pytest.raises(ValueError, match='percent must be above 0 and at most 100'):
        choose_images([1, 2], percent)


BROKEN = {
    "no key 'images'": lambda c: c.pop('images'),
    "no key 'annotations'": lambda c: c.pop('annotations'),
    "no key 'categories'": lambda c: c.pop('categories'),
    'images should be a list, but is a dict': lambda c: c.update(images={}),
    'info should be an object, but is a str': lambda c: c.update(info='mine'),
    'images is empty': lambda c: c.update(images=[], annotations=[]),
    r'annotations\[2\] should be an object, but is a int': lambda c: c['annotations'].insert(2, 7),
    r'images\[3\] has no id': lambda c: c['images'][3].pop('id'),
    r'images\[4\] has no id, .*: \[1\]': lambda c: c['images'][4].update(id=[1]),
    r'images\[9\] has the id \d+, which an earlier one has': lambda c: c['images'].insert(
        9, {**c['images'][0], 'file_name': 'other.jpg'}),
    r"annotations\[1\] .*has no key 'image_id'": lambda c: c['annotations'][1].pop('image_id'),
    r'the image_id of no entry of images: 1 \(annotations\[5\] .*has image_id 17\)': lambda c: c[
        'annotations'][5].update(image_id=17),
    r'annotations\[6\] .*has image_id \[\]': lambda c: c['annotations'][6].update(
        image_id=[]),
    r'of no entry of categories: 1 \(annotations\[0\] .*has category_id True': lambda c: c[
        'annotations'][0].update(category_id=True),
}


@pytest.mark.parametrize('message', BROKEN)
def test_what_is_no_coco_file_is_refused_with_file_and_place(tmp_path: Path, message) -> None:
    content = coco()
    BROKEN[message](content)
    source, out = tmp_path / 'mine.json', tmp_path / 'folder/out.json'
    source.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'mine\.json.*{message}'):
        write_subset(source, out, 5)
    assert os.listdir(tmp_path) == ['mine.json']


@pytest.mark.parametrize('text', ['', '{"images": [', 'no json', '[1, 2]', 'null', '\ufeff{}'])
def test_broken_json_is_refused(tmp_path: Path, text) -> None:
    source = tmp_path / 'mine.json'
    source.write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match=r'mine\.json'):
        write_subset(source, tmp_path / 'out.json', 5)
    assert os.listdir(tmp_path) == ['mine.json']


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='there is no file .*nowhere.json'):
        write_subset(tmp_path / 'nowhere.json', tmp_path / 'out.json', 5)


def test_nothing_is_replaced_unless_asked(source: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    write_subset(source, out, 5)
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match='out.json already exists. Add --overwrite'):
        write_subset(source, out, 50)
    assert out.read_bytes() == before
    assert write_subset(source, out, 50, overwrite=True).images == 20
    assert len(json.loads(out.read_text())['images']) == 20


def test_the_source_and_a_folder_are_never_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / 'link.json').symlink_to(source)
    before = source.read_bytes()
    for out in (source, tmp_path / 'link.json'):
        with pytest.raises(ValueError, match='is the source itself'):
            write_subset(source, out, 5, overwrite=True)
    with pytest.raises(ValueError, match='is a folder'):
        write_subset(source, tmp_path, 5, overwrite=True)
    assert source.read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_no_rest(source, tmp_path, monkeypatch) -> None:
    out = tmp_path / 'out.json'
    write_subset(source, out, 5)
    before, files = out.read_bytes(), sorted(os.listdir(tmp_path))

    def full(handle: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_subset(source, out, 50, overwrite=True)
    assert out.read_bytes() == before and sorted(os.listdir(tmp_path)) == files


def test_the_summary_counts_and_stages_are_told(source: Path, tmp_path: Path) -> None:
    stages = []
    summary = write_subset(source, tmp_path / 'new/out.json', 25, report=stages.append)
    subset = COCO(str(summary.path))
    assert summary.images == len(subset.imgs) == 10 and summary.source_images == 40
    assert summary.annotations == len(subset.anns) and summary.source_annotations == 39
    assert summary.categories == len(subset.cats) == 3
    assert summary.empty_categories == ('unicorn',)
    assert stages == [f'reading {source}', 'choosing images', f'writing {summary.path}']


@pytest.mark.parametrize('percent, name', [(5, '5'), (10.0, '10'), (0.5, '0.5'), (100, '100')])
def test_the_default_output_lies_beside_the_source(percent, name) -> None:
    assert default_output('a/instances_train2017.json', percent) == Path(
        f'a/instances_train2017_{name}percent.json')


def test_the_tool(source: Path, tmp_path: Path) -> None:
    out = tmp_path / 'instances_train2017_5percent.json'
    out.write_text('to be replaced')
    done = subprocess.run(
        [PYTHON, str(TOOL), source.name, '--percent', '5', '--seed', '1', '--overwrite'],
        cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    subset = json.loads(out.read_text())
    assert subset == subset_coco(coco(), 5, 1, source.name)
    assert f'2 of 40 images, {len(subset["annotations"])} of 39 annotations' in done.stdout
    assert 'unicorn' in done.stdout and 'of 3 categories)' in done.stdout
    assert f'The subset is {out.name} (' in done.stdout
