"""Tests that curves show what was logged, for one run, resumed runs and several runs."""
import json
import logging
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import PYTHON
from small import ROOT

from projects.soco.pictures.curves import ap_name, draw_training, training_figure
from projects.soco.runs.log import read_run, read_runs, read_scalars


def run(num: int, **more: float) -> list[dict]:
    return [dict(loss=-i / num, lr=.1, step=5 * i, time=.2, **more) for i in range(1, num + 1)]


def panels(records: list[dict], **options: float) -> dict:
    return {axes.get_title(loc='left'): axes for axes in training_figure(records, **options).axes}


def test_training_has_a_panel_for_each_given_key():
    assert list(panels(run(5))) == ['Loss', 'Learning rate', 'Seconds per iteration']
    full = panels(run(5, loss_12=-.5, loss_13=-.3, momentum=.99, obj_std=.5), obj_std_floor=.3)
    assert list(full) == ['Loss', 'Learning rate', 'Momentum of the target network',
                          'Spread of object features', 'Seconds per iteration']
    labels = [text.get_text() for text in full['Loss'].get_legend().get_texts()]
    assert labels == ['total', 'views 1, 2', 'views 1, 3']
    spread = full['Spread of object features']
    assert list(spread.lines[1].get_ydata()) == [.3, .3]
    assert [text.get_text() for text in spread.texts] == ['floor 0.3']


def test_training_draws_the_logged_values_at_their_iterations():
    records = run(4, obj_std=.5) + [{'coco/bbox_mAP': .1, 'step': 1}]
    line = panels(records)['Loss'].lines[0]
    assert list(line.get_xdata()) == [5, 10, 15, 20]
    assert list(line.get_ydata()) == [-.25, -.5, -.75, -1]
    by_iter = panels([dict(iter=7, loss=1.), dict(iter=9, loss=2.)])['Loss'].lines[0]
    assert list(by_iter.get_xdata()) == [7, 9]


def test_a_detector_has_its_ap_along_the_schedule():
    judged = [{'coco/bbox_mAP': .1 * i, 'coco/bbox_mAP_50': .2 * i, 'coco/segm_mAP': .05 * i,
               'coco/bbox_mAP_75': .1, 'step': 10 * i} for i in (1, 2)]
    found = panels(run(4, loss_bbox=.5) + judged)
    assert list(found)[:4] == ['Loss', 'AP on val', 'AP50 on val', 'Learning rate']
    box, mask = found['AP on val'].lines
    assert list(box.get_xdata()) == [10, 20] and list(box.get_ydata()) == [.1, .2]
    assert list(mask.get_ydata()) == [.05, .1]
    labels = [text.get_text() for text in found['AP on val'].get_legend().get_texts()]
    assert labels == ['box', 'mask']
    both = panels(dict(one=judged, another=judged))
    assert {'AP on val: box', 'AP on val: mask', 'AP50 on val: box'} == set(both)
    for key, name in (('lvis/segm_AP50', ('AP50', 'mask')), ('pascal_voc/AP50', ('AP50', 'box')),
                      ('pascal_voc/mAP', None), ('coco/bbox_mAP_s', None)):
        assert ap_name(key) == name


def test_validations_by_epoch_are_at_the_iteration_of_their_end(tmp_path):
    log = tmp_path / '20260102_030405/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    rows = [dict(loss=1., time=.1, step=50), {'coco/bbox_mAP': .1, 'time': 9., 'step': 1},
            dict(loss=1., time=.1, step=100), {'coco/bbox_mAP': .2, 'time': 9., 'step': 2}]
    log.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    records = read_run(tmp_path)
    assert [row['step'] for row in records if 'coco/bbox_mAP' in row] == [50, 100]
    assert list(panels(records)['Seconds per iteration'].lines[0].get_ydata()) == [.1, .1]


def test_training_adds_a_running_mean_to_long_losses():
    raw, mean = panels(run(100))['Loss'].lines
    assert len(raw.get_ydata()) == 100
    assert mean.get_ydata()[0] == pytest.approx(-.03)
    assert (mean.get_xdata()[0], mean.get_xdata()[-1]) == (25, 500)


@pytest.mark.parametrize('records', [[], [{'coco/bbox_mAP_75': .1, 'step': 1}]])
def test_training_without_values_says_the_way_out(records, tmp_path):
    with pytest.raises(ValueError, match=r'Nothing to draw.*logger\.interval'):
        draw_training(records, tmp_path / 'curve.png')
    assert not list(tmp_path.iterdir())


def test_draw_training_writes_a_picture(tmp_path):
    out = draw_training(run(50, momentum=.99), tmp_path / 'new' / 'curve.png')
    assert out == tmp_path / 'new' / 'curve.png'
    picture = np.asarray(Image.open(out))
    assert picture.shape[2] == 3 and picture.shape[0] > 500 and picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_read_scalars_reads_each_line(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 1.5, "step": 1}\n\n{"loss": NaN, "step": 2}\n')
    first, second = read_scalars(path)
    assert first == dict(loss=1.5, step=1) and np.isnan(second['loss'])


def test_read_scalars_skips_a_torn_last_line_with_a_warning(tmp_path, caplog):
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 1.5, "step": 1}\n{"loss": 1.')
    with caplog.at_level(logging.WARNING):
        assert read_scalars(path) == [dict(loss=1.5, step=1)]
    assert 'line 2' in caplog.text and str(path) in caplog.text


@pytest.mark.parametrize('text', ['{"a": 1}\n{"a": \n{"a": 2}\n', '{"a": 1}\n[1]\n',
                                  '{"a": 1}\n{"a": \n'])
def test_read_scalars_names_file_and_row_of_a_bad_line(tmp_path, text):
    path = tmp_path / 'scalars.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'scalars\.json, line 2 is not a record'):
        read_scalars(path)


def test_read_scalars_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'No scalars at .*vis_data/scalars\.json'):
        read_scalars(tmp_path / 'none.json')


def test_training_reads_what_was_written(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text(''.join(json.dumps(record) + '\n' for record in run(3)))
    assert list(panels(read_scalars(path))) == ['Loss', 'Learning rate', 'Seconds per iteration']


SHARES = dict(share_v1_p2=.1, share_v1_p3=.9, share_v2_p2=.4, share_v2_p3=.6)


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_speed_memory_and_levels_have_panels():
    records = run(3, images_per_s=50., data_time=.1, memory=9000, obj_std=.5, obj_std_target=.4)
    records.append(dict(SHARES, step=15))
    drawn = panels(records)
    assert list(drawn)[2:] == [
        'Spread of object features', 'Images per second', 'Seconds per iteration',
        'Peak GPU memory (MB)', 'Share of the boxes of view 1',
        'Share of the boxes of view 2']
    assert legend(drawn['Spread of object features']) == ['online', 'target']
    assert legend(drawn['Seconds per iteration']) == ['whole', 'waiting for data']
    view_2 = drawn['Share of the boxes of view 2']
    assert legend(view_2) == ['P2', 'P3']
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in view_2.lines] == [
        ([15], [.4]), ([15], [.6])]


def test_a_detectors_losses_are_drawn_by_their_own_names():
    records = [dict(loss=3., loss_rpn_cls=1., loss_mask=2., acc=70., lr=.1, step=50),
               {'coco/bbox_mAP': .1, 'step': 1}]
    assert legend(panels(records)['Loss']) == ['total', 'loss_mask', 'loss_rpn_cls']
    assert list(panels(records)) == ['Loss', 'AP on val', 'Learning rate']


def test_several_runs_have_a_panel_a_quantity_and_a_colour_a_run():
    figure = training_figure(dict(first=run(4, loss_12=-.5, **SHARES), second=run(6, momentum=.9)))
    drawn = {axes.get_title(loc='left'): axes for axes in figure.axes}
    assert list(drawn) == [
        'Loss: total', 'Loss: views 1, 2', 'Learning rate', 'Momentum of the target network',
        'Seconds per iteration: whole', 'Share of the boxes of view 1: P2',
        'Share of the boxes of view 1: P3', 'Share of the boxes of view 2: P2',
        'Share of the boxes of view 2: P3']
    (of_figure, ) = figure.legends
    colours = {text.get_text(): line.get_color()
               for text, line in zip(of_figure.get_texts(), of_figure.get_lines())}
    assert list(colours) == ['first', 'second']
    first, second = drawn['Loss: total'].lines
    assert (len(first.get_xdata()), len(second.get_xdata())) == (4, 6)
    for line, name in ((first, 'first'), (second, 'second'),
                       (drawn['Loss: views 1, 2'].lines[0], 'first'),
                       (drawn['Momentum of the target network'].lines[0], 'second')):
        assert np.array_equal(line.get_color(), colours[name])
    assert not np.array_equal(colours['first'], colours['second'])


def test_of_several_runs_the_one_without_values_is_named():
    with pytest.raises(ValueError, match='Nothing to draw of empty'):
        training_figure(dict(full=run(3), empty=[]))


def start(work_dir: Path, name: str, records: list[dict], end: str = '') -> None:
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(r) + '\n' for r in records) + end)


def test_a_resumed_run_is_one_run_and_the_later_start_counts(tmp_path):
    """The second start resumes from iteration 20; the third one logs only an evaluation."""
    start(tmp_path, '20260102_000000', [dict(loss=2., step=s) for s in (25, 30)] +
          [{'coco/bbox_mAP': .2, 'step': 2}])
    start(tmp_path, '20260101_000000', [dict(loss=1., lr=.1, step=s) for s in (10, 20, 30, 40)] +
          [{'coco/bbox_mAP': .1, 'step': 1}], end='{"loss": 1., "st')
    start(tmp_path, '20260103_000000', [{'coco/bbox_mAP': .3, 'step': 3}])
    (tmp_path / '20260104_000000/vis_data').mkdir(parents=True)  # killed before it logged
    records = read_run(tmp_path)
    assert [(r['step'], r['loss']) for r in records if 'loss' in r] == [
        (10, 1), (20, 1), (25, 2), (30, 2)]
    assert [r['step'] for r in records if 'lr' in r] == [10, 20, 30, 40]
    assert [r['coco/bbox_mAP'] for r in records if 'coco/bbox_mAP' in r] == [.1, .2, .3]


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    for name in ('a/run', 'b/run', 'c/other'):
        start(tmp_path / name, '20260101_000000', run(2))
    assert list(read_runs([tmp_path / 'a/run', tmp_path / 'c/other'])) == ['run', 'other']
    assert list(read_runs([tmp_path / 'a/run', tmp_path / 'b/run'])) == ['a/run', 'b/run']
    with pytest.raises(ValueError, match='b/../a/run is given twice'):
        read_runs([tmp_path / 'a/run', tmp_path / 'b/../a/run'])


def test_an_empty_work_dir_says_what_is_wanted(tmp_path):
    (tmp_path / '20260101_000000/vis_data').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r'contains no log.*work directory'):
        read_run(tmp_path)


@pytest.mark.slow  # it imports the shared code of the tools
def test_the_tool_writes_into_the_first_work_dir(tmp_path):
    start(tmp_path / 'one', '20260101_000000', run(3), end='{"lo')
    start(tmp_path / 'two', '20260101_000000', run(3))
    (tmp_path / 'none').mkdir()

    def plot(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([PYTHON, ROOT / 'tools/plot_curves.py', *arguments], text=True,
                              capture_output=True, cwd=tmp_path)

    done = plot('one', 'two')
    assert done.returncode == 0 and done.stdout.strip() == 'one/curves.png'
    assert 'line 4 is unfinished' in done.stderr
    with Image.open(tmp_path / 'one/curves.png') as picture:
        assert np.asarray(picture).std() > 10
    failed = plot('none', '--out', 'curves.png')
    assert failed.returncode == 2 and 'none contains no log of a run' in failed.stderr
    assert not (tmp_path / 'curves.png').exists()


def test_shares_begin_a_row_of_their_own():
    figure = training_figure(dict(one=run(4, obj_std=.5, **SHARES), two=run(4, obj_std=.6, **SHARES)))
    rows = {axes.get_title(loc='left'): axes.get_subplotspec().rowspan.start for axes in figure.axes}
    assert [row for title, row in rows.items() if title.startswith('Share')] == [2, 2, 2, 3]
    assert max(row for title, row in rows.items() if not title.startswith('Share')) == 1
