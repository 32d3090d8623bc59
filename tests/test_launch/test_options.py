"""Values of --cfg-options: what the user wrote, in the type of the value that it replaces."""
import argparse
import ast
import re
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from small import ROOT

from projects.soco.launch.arguments import add_options_argument
from projects.soco.launch.configs import LOADER_KEYS, RUNNER_KEYS, apply_option, load_config
from projects.soco.launch.options import MISSING, read_value, set_value

QUICKSTART = str(ROOT / 'configs/soco_r18_fpn_quickstart.py')
LINES = st.text(st.characters(exclude_characters='\n\r', exclude_categories=['Cs']))


def parse(*words: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    add_options_argument(parser, 'a=1')
    return parser.parse_args(['--cfg-options', *words]).cfg_options


def is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in '\'"' and text[-1] == text[0] not in text[1:-1]


@given(LINES, st.sampled_from(['a folder', '', '5', 'None']))
def test_text_stays_what_was_written(text: str, old: str):
    options = parse(f'data_root={text}')
    assert options == {'data_root': text}
    if text != 'None' and not is_quoted(text):
        assert read_value('data_root', text, old) == text
        assert read_value('work_dir', text, None) == read_value('ann_file', text) == text


@given(LINES.filter(lambda text: "'" not in text))
def test_quotes_around_a_whole_text_are_removed(text: str):
    assert read_value('data_root', f"'{text}'", 'old') == text


@settings(max_examples=40)
@given(st.recursive(st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False),
                              LINES.filter(lambda t: '\\' not in t and repr(t)[1:-1] == t)),
                    lambda inner: st.lists(inner) | st.tuples(inner, inner), max_leaves=8))
def test_a_new_key_reads_pythons_literals(value: Any):
    assert read_value('model.extra', repr(value)) == value


@settings(max_examples=40)
@given(st.lists(LINES.filter(lambda t: repr(t)[1:-1] == t)))
def test_lists_of_text_keep_spaces_commas_and_digits(value: list[str]):
    assert read_value('require', repr(value), ['backbone']) == value


@pytest.mark.parametrize('text, old, value', [
    ('Photos, 2024', 'x', 'Photos, 2024'), ('[2024] (best)', 'x', '[2024] (best)'),
    ('2024', 'x', '2024'), ('true', 'x', 'true'), (' a  b ', 'x', ' a  b '),
    ('', 'x', ''), ('C:\\photos\\new', 'x', None),
    ('a=b=c', 'x', 'a=b=c'), ('~/Fotos ä 写真', 'x', '~/Fotos ä 写真'), ("it's", 'x', "it's"),
    ("'a' and 'b'", 'x', "'a' and 'b'"),
    ('16', 8, 16), ('1e2', 8, 100), ('8.0', 8, 8), ('0.5', 35, 0.5), ('-1', 8, -1), ("'8'", 8, 8),
    ('1', 0.1, 1.0), ('1e-3', 0.1, 0.001), ('inf', 0.1, float('inf')),
    ('true', False, True), ('False', True, False), ('TRUE', False, True), ('0', True, False),
    ('[a, b c]', ['x'], ['a', 'b c']), ('a,b', ['x'], ['a', 'b']), ('a', ['x'], ['a']),
    ("['Photos, 2024','b c']", ['x'], ['Photos, 2024', 'b c']), ('2024,b', ['x'], ['2024', 'b']),
    ("['C:\\a','it's']", ['x'], ['C:\\a', "it's"]), ("'[a,b]'", ['x'], ['a', 'b']), ('[]', ['x'], []),
    ('8,11', [1, 2], [8, 11]), ('8', [1], [8]), ('[8, 11,]', [1, 2], [8, 11]),
    ('8,None', [1], [8, None]),
    ('(64,64)', (3, 3), (64, 64)), ('[64,64]', (3, 3), (64, 64)), ('64,64', (3, 3), (64, 64)),
    ('(1,2),(3,4)', [(5, 6)], [(1, 2), (3, 4)]), ('[[1,2],(3,4)]', [(5, 6)], [(1, 2), (3, 4)]),
    ("{'a': 2, b: x y}", {'a': 1, 'b': 'z'}, {'a': 2, 'b': 'x y'}), ('{}', {'a': 1}, {}),
    ('a,b', MISSING, ['a', 'b']), ('Photos, 2024', MISSING, 'Photos, 2024'), ('[old] x', MISSING, None),
    ('1e-3', None, 0.001), ('007', None, '007'), ('1_000', None, '1_000'), ('0x10', None, '0x10'),
    ('Nancy', None, 'Nancy'), ("'8'", None, '8'), ('[1,(2,a b)]', None, [1, (2, 'a b')]),

    ('[' * 9999, None, None), ('[' * 9999, 'x', None), ('{a: [1, true]}', None, {'a': [1, True]}),
    ('[a', None, '[a'), (' x', None, ' x'),
])
def test_the_old_value_gives_the_type(text: str, old: Any, value: Any):
    read = read_value('key', text, old)
    value = text if value is None else value
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize('old', ['text', 8, 0.5, False, [1], (1, 2), {'a': 1}, None])
def test_none_is_none_for_every_type_and_quoted_none_is_text(old: Any):
    assert read_value('key', 'None', old) is None
    if isinstance(old, str) or old is None:
        assert read_value('key', "'None'", old) == 'None'


@pytest.mark.parametrize('key, text, old, expected', [
    ('train_dataloader.batch_size', 'many', 8, 'a whole number'),
    ('batch_size', '', 8, 'a whole number'),
    ('train_cfg.max_epochs', '3.5', 10, 'a whole number'), ('num_workers', '1.5', 2, 'a whole number'),
    ('seed', 'nan', 1, 'a whole number'), ('lr', 'fast', 0.1, 'a number'),
    ('lr', '0,1', 0.1, 'a number'), ('lr', 'nan', 0.1, 'a number'),
    ('resume', 'yes', False, 'true or false'),
    ('resume', '2', False, 'true or false'), ('size', '64', (64, 64), 'a tuple such as'),
    ('milestones', '8,a', [8, 11], 'a whole number'),
    ('milestones', '[8,11', [8, 11], 'a list such as'),
    ('milestones', '8.5,11', [8, 11], 'a whole number'),
    ('milestones.0', '8.5', 8, 'a whole number'), ('require', '', ['a'], 'a list such as'),
    ('scales', '[(1,2),3]', [(1, 2)], 'a tuple'), ('scales', '[(1,b)]', [(1, 2)], 'a whole number'),
    ('optimizer', 'SGD', {'lr': 1}, 'a dict such as'), ('optimizer', '{lr: fast}', {'lr': 0.1},
                                                        'a number for lr'),
])
def test_what_does_not_fit_is_refused(key: str, text: str, old: Any, expected: str):
    with pytest.raises(ValueError) as refused:
        read_value(key, text, old)
    message = str(refused.value)
    assert message.startswith(f'--cfg-options {key}={text}: {expected}')
    assert message.endswith(f'write {key}:=VALUE.')


@pytest.mark.parametrize('text, old, value', [
    ('[bbox,segm]', 'bbox', ['bbox', 'segm']), ('512.', 'dynamic', 512.0), ('3.5', 10, 3.5),
    ('SGD', {'a': 1}, 'SGD'), ('a, b', 'x', 'a, b')])
def test_another_type_on_purpose(text: str, old: Any, value: Any):
    assert parse(f'key:={text}') == {'key:': text}
    assert read_value('key:', text, old) == value


class TestWords:

    def test_options_add_up_and_the_last_of_a_repeated_key_counts(self, capsys):
        options = parse('a=1', 'b=2', '--cfg-options', 'a=3', 'c=x=y')
        assert list(options.items()) == [('b', '2'), ('a', '3'), ('c', 'x=y')]
        assert 'a is given twice: 3 is used, not 1' in capsys.readouterr().err
        parse('a=1', 'a=1')
        assert not capsys.readouterr().err

    @pytest.mark.parametrize('words', [('a=Photos,', '2024'), ('a',), ('=1',), ('a=1', 'config.py')])
    def test_a_word_without_key_or_value(self, words, capsys):
        with pytest.raises(SystemExit) as ended:
            parse(*words)
        assert ended.value.code == 2 and 'must be KEY=VALUE' in capsys.readouterr().err

    def test_a_word_does_not_change_the_default(self):
        assert parse('a=1') and parse('b=1') == {'b': '1'}


class TestConfigs:

    def test_values_reach_the_config(self, tmp_path):
        cfg = load_config(QUICKSTART, {
            'train_dataloader.dataset.data_root': 'Photos, 2024', 'default_hooks.scores.images': '2024',
            'train_dataloader.dataset.pipeline.1.views.0.size': '48',
            'train_dataloader.dataset.pipeline.1.views.1.area.0': '0.25',
            'model.neck.in_channels': '16,32,64,128', 'train_dataloader.prefetch_factor': '4',
            'optim_wrapper.optimizer': '{_delete_: true, type: SGD, lr: 0.1}',
            'model.backbone': "{'depth': 50}", 'model.backbone.frozen_stages': '1',
            'train_dataloader.batch_size': 16}, register=False)
        assert cfg.train_dataloader.dataset.data_root == 'Photos, 2024'
        assert cfg.default_hooks.scores.images == '2024'
        views = cfg.train_dataloader.dataset.pipeline[1].views
        assert views[0].size == 48 and views[1].area == (0.25, 1.0) and views[1].size == 64
        assert cfg.model.neck.in_channels == [16, 32, 64, 128]
        assert cfg.train_dataloader.prefetch_factor == 4 and cfg.train_dataloader.batch_size == 16
        assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1)
        assert cfg.model.backbone.depth == 50 and cfg.model.backbone.frozen_stages == 1
        assert cfg.model.backbone.type == 'mmdet.ResNet'
        cfg.dump(tmp_path / 'dumped.py')
        again = Config.fromfile(tmp_path / 'dumped.py', import_custom_modules=False)
        assert again.train_dataloader.dataset.data_root == 'Photos, 2024'

    def test_other_places_with_the_same_value_do_not_change(self):
        cfg = Config(dict(a=dict(x=[dict(y=1)]), b=2))
        kept = cfg.a.x[0]
        apply_option(cfg, 'a.x.0.y', '5')
        assert cfg.a.x[0].y == 5 and kept.y == 1
        assert set_value({'a': (1, 2)}, ['a', '1'], 3) == {'a': (1, 3)}

    @pytest.mark.parametrize('key, value, message', [
        ('model.backbone', "{'dept': 50}", None), ('optim_wrapper', '{optimiser: {lr: 1}}', None),
        ('custom_imports.imports', '[os]', 'options can only set values'),
        ('model.backbone', "{'type': 'subprocess.Popen'}", 'registered class'),
        ('train_dataloader.dataset.pipeline', "[{'type': 'os.system'}]", 'registered class'),
        ('custom_hooks', '[{type: os.system}]', 'registered class'),
        ('model._scope_', 'os', 'registered class'), ('default_scope', 'os', 'registered class'),
        ('train_dataloader', '{batchsize: 3}', 'Did you mean train_dataloader.batch_size'),
        ('default_hooks', '{momentun: {momentum: 1}}', 'Did you mean default_hooks.momentum'),
    ])
    def test_keys_and_classes_inside_a_value_are_checked(self, key, value, message):
        if message is None:  # a dict with a type: its class checks the keys
            load_config(QUICKSTART, {key: value}, register=False)
            return
        with pytest.raises(ValueError, match=message):
            load_config(QUICKSTART, {key: value}, register=False)


def test_the_listed_keys_are_those_of_the_runner_and_of_loaders():
    import inspect

    from mmengine.runner import Runner
    from torch.utils.data import DataLoader
    assert set(inspect.signature(Runner.__init__).parameters) - {'self'} <= RUNNER_KEYS
    assert set(inspect.signature(DataLoader.__init__).parameters) - {'self'} == LOADER_KEYS


def test_every_row_of_the_docs_is_true():
    page = (ROOT / 'docs/recipes.md').read_text()
    rows = re.findall(r'^\| `(.+?)` \| (.+?) \| `(.+?)` \|$', page, re.M)
    assert len(rows) >= 8
    for option, old, value in rows:
        key, _, text = option.partition('=')
        before = MISSING if old == 'a new key' else ast.literal_eval(old.strip('`'))
        assert read_value(key, shlex.split(text)[0], before) == ast.literal_eval(value), option
