"""A complete small study, stopped and resumed, and the scheduling of its jobs."""
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from scripts import PYTHON
from small import ROOT, make_photos

from projects.soco.runs.follow import DivergedError
from projects.soco.study.data import StudyData
from projects.soco.study.plan import Job, read_study
from projects.soco.study.records import Records
from projects.soco.study.run import StudyRun, score_of_trial

STUDIES = ROOT / 'configs/benchmarks/transfer_study'
TOOL = ROOT / 'tools/benchmarks/transfer_study.py'


def write_data(root: Path) -> None:
    """Write photos with two annotated objects each, of two supercategories."""
    make_photos(root / 'photos', 4)
    make_photos(root / 'coco_mini/images', 10)
    (root / 'coco_mini/annotations').mkdir()
    for split, photos in (('train', range(6)), ('val', range(6, 10))):
        content = dict(
            images=[dict(id=i, file_name=f'photo_{i:03}.png', width=96, height=72) for i in photos],
            annotations=[dict(id=2 * i + j, image_id=i, category_id=3 + j, bbox=[4 + 40 * j, 8, 36, 48],
                              area=36 * 48, iscrowd=0, segmentation=[[4 + 40 * j, 8, 40 + 40 * j, 8,
                                                                      40 + 40 * j, 56, 4 + 40 * j, 56]])
                         for i in photos for j in (0, 1)],
            categories=[dict(id=3, name='cat', supercategory='animal'),
                        dict(id=4, name='car', supercategory='vehicle')])
        (root / f'coco_mini/annotations/{split}.json').write_text(json.dumps(content))


def write_study(folder: Path) -> Path:
    """Write a small study: two methods with two options each, three arms, one seed."""
    views = 'custom = _base_.train_dataloader.dataset.pipeline[1].views\n' \
            'for view in custom:\n    view.size = 32\n'
    for method, neck in (('soco', 'in_channels=[16, 32, 64, 128]'), ('byol', 'in_channels=128')):
        (folder / f'{method}.py').write_text(
            f"_base_ = '{STUDIES}/{method}_r18.py'\n{views}train_dataloader = dict(batch_size=4)\n"
            f'model = dict(backbone=dict(base_channels=16), neck=dict({neck}))\n')
    (folder / 'detector.py').write_text(f"""_base_ = '{STUDIES}/mask-rcnn_r18.py'
classes = ('animal', 'vehicle')
model = dict(
    backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=8), rcnn=dict(sampler=dict(num=8))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=8), rcnn=dict(score_thr=0., max_per_img=8)))
train_dataloader = dict(batch_size=2, dataset=dict(metainfo=dict(classes=classes)))
val_dataloader = dict(batch_size=2, dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
_base_.train_dataloader.dataset.pipeline[2].scale = (128, 96)
train_cfg = dict(max_iters=4, val_interval=2)
default_hooks = dict(
    checkpoint=dict(interval=2), logger=dict(interval=1), precise_bn=dict(num_iters=1))
""")
    (folder / 'study.py').write_text(f"""_base_ = '{STUDIES}/study_cpu.py'
rates = [{{'optim_wrapper.optimizer.lr': lr}} for lr in (1e-3, 3e-3)]
parts = ['backbone', 'neck', 'roi_head.bbox_head']
study = dict(
    name='miniature', seeds=[3], epochs=3, trial_epochs=2, workers=2, resamples=20,
    methods=dict(_delete_=True, soco=dict(config='{folder}/soco.py', options=rates),
                 byol=dict(config='{folder}/byol.py', options=rates)),
    arms=dict(_delete_=True, random=dict(title='random'),
              byol=dict(title='BYOL', method='byol', parts=parts[:1]),
              soco=dict(title='SoCo', method='soco', parts=parts)),
    object_config='{folder}/soco.py', detector='{folder}/detector.py',
    order=[dict(stage='objects', arms=['random', 'byol', 'soco']),
           dict(stage='finetune', arms=['random', 'byol', 'soco'], share=50)])
""")
    return folder / 'study.py'


def run_tool(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [PYTHON, str(TOOL), *map(str, arguments)], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_WAIT_POLICY': 'PASSIVE',
                             'PYTHONWARNINGS': 'ignore'})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow(30)
def test_a_whole_study(tmp_path: Path):
    write_data(tmp_path / 'data')
    study = write_study(tmp_path)
    arguments = (study, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'work')

    # After these seconds, a fast machine has started the first runs, a slow one has not.
    code, told = run_tool(*arguments, '--minutes', '0.05')
    assert code == 75, told
    assert 'Run the same command to continue' in told
    first = json.loads((tmp_path / 'work/results.json').read_text())['records']
    assert len(first) < 12

    code, told = run_tool(*arguments)
    assert code == 0, told
    content = json.loads((tmp_path / 'work/results.json').read_text())
    records = content['records']
    # finished jobs were not repeated
    assert all(records[key] == value for key, value in first.items())
    assert set(records) == {
        f'{kind}/{name}/{last}' for kind, names, lasts in (
            ('trial', ('soco', 'byol'), ('options0', 'options1')),
            ('pretrain', ('soco', 'byol'), ('seed3', )),
            ('objects', ('random', 'byol', 'soco'), ('seed3', )),
            ('finetune', ('random', 'byol', 'soco'), ('50percent/seed3', )))
        for name in names for last in lasts}
    for method in ('soco', 'byol'):
        trials = [records[f'trial/{method}/options{i}'] for i in (0, 1)]
        best = max(trials, key=lambda trial: trial['values']['knn_backbone'])
        assert records[f'pretrain/{method}/seed3']['options'] == best['options']
        checkpoint = tmp_path / 'work' / records[f'pretrain/{method}/seed3']['checkpoint']
        assert 0 < records[f'pretrain/{method}/seed3']['ms_per_image'] < 10_000
        assert checkpoint.name == 'epoch_3.pth' and checkpoint.is_file()
    assert records['pretrain/soco/seed3']['gflop_per_image'] > records[
        'pretrain/byol/seed3']['gflop_per_image'] > 0

    # the weights that each detector started from, from its log
    found = {arm: re.findall(r'(\d+) of (\d+) keys matched', (
        tmp_path / f'work/finetune/{arm}/50percent/seed3/output.log').read_text())
        for arm in ('random', 'byol', 'soco')}
    assert found == dict(random=[], byol=[('120', '120')], soco=[('194', '194')])
    values = records['finetune/soco/50percent/seed3']['values']
    assert {'box_AP50@2', 'box_AP50@4', 'mask_AP@4'} <= set(values)
    command = records['finetune/soco/50percent/seed3']['command']
    assert 'img=DATA/ ' in command and '--work-dir WORK_DIR/finetune/soco/' in command
    assert not list((tmp_path / 'work/finetune').rglob('*.pth'))

    assert set(content['comparisons']) == {'objects', 'finetune/50'}
    assert (tmp_path / 'work/transfer_study.png').stat().st_size > 10_000
    assert '| SoCo − BYOL |' in (tmp_path / 'work/tables.md').read_text()
    code, told = run_tool(*arguments, '--plan')
    assert code == 0 and told.count('done ') == len(records) == 12



@pytest.mark.parametrize('change, message', [
    (('--minutes', '0'), '--minutes must be more than 0'),
    (('--data', 'nowhere'), 'There is no .*nowhere/coco_mini/annotations/train.json'),
    (('--tables', ), 'There are no results at .*work/results.json'),
])
def test_what_users_get_wrong(tmp_path: Path, change: tuple, message: str):
    code, told = run_tool(STUDIES / 'study_cpu.py', '--data', tmp_path, '--work-dir', tmp_path / 'work',
                          *change)
    assert code == 2 and re.search(message, ' '.join(told.split())), told


@pytest.fixture
def study_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRun:
    """The CPU study with one seed, whose jobs only add a record."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / 'study.py'
    path.write_text(f"_base_ = '{STUDIES}/study_cpu.py'\nstudy = dict(seeds=[0])\n")
    study = read_study(path)
    run = StudyRun(study, StudyData(study, tmp_path, tmp_path), Records(tmp_path / 'results.json', {}),
                   tmp_path, Console(quiet=True))
    run.order = []

    def do(job: Job, report: object) -> None:
        missing = [need.key for need in study.needs(job) if need.key not in run.records]
        assert not missing, f'{job.key} began before {missing}'
        run.order.append(job.key)
        run.records.add(job.key, dict(values={}))

    monkeypatch.setattr(run, '_do', dict.fromkeys(run._do, do))
    monkeypatch.setattr(run, '_iterations', lambda job: None)
    return run


def test_every_job_is_done_once_after_what_it_needs(study_run: StudyRun):
    assert study_run.run()
    keys = [job.key for job in study_run.study.jobs()]
    assert sorted(study_run.order) == sorted(keys) and len(keys) == 12 + 6 * 3


def test_after_the_deadline_nothing_begins(study_run: StudyRun):
    assert not study_run.run(deadline=0)
    assert not study_run.order


def test_a_job_that_fails_is_told_and_what_was_done_stays(study_run: StudyRun):
    def fail(job: Job, report: object) -> None:
        raise ValueError('no photos')

    works = study_run._do['finetune']
    study_run._do['finetune'] = fail
    with pytest.raises(ValueError, match='no photos'):
        study_run.run()
    done = list(study_run.order)
    assert 'objects/random/seed0' in done and not any(key.startswith('finetune') for key in done)
    study_run._do['finetune'] = works
    study_run._stop.clear()  # as in a new process
    assert study_run.run() and study_run.order[:len(done)] == done
    assert len(set(study_run.order)) == len(study_run.order) == 30


def test_a_detector_that_was_killed_while_it_validated_is_done_again(
        study_run: StudyRun, monkeypatch: pytest.MonkeyPatch):
    job, runs = Job('finetune', 'random', 0), []

    def train(command: list, folder: Path, job: Job, report: object) -> float:
        """Omit the second point's predictions in the first run, as after a resume behind it."""
        (folder / 'predictions').mkdir(parents=True)
        for point in (200, 600) if not runs else (200, 400, 600):
            for kind in ('bbox', 'segm'):
                (folder / f'predictions/iter_{point}.{kind}.json').write_text('[]')
        runs.append(command)
        return 1.0

    monkeypatch.setattr(study_run, '_train', train)
    monkeypatch.setattr('projects.soco.study.run.judge_predictions',
                        lambda labels, folder, resamples: ({'box_AP50@600': 0.1}, {}))
    study_run._finetune(job, lambda done, state: None)
    assert len(runs) == 2 and runs[0] == runs[1]
    assert study_run.records[job.key]['values'] == {'box_AP50@600': 0.1}

    # a detector that never saves them fails, and is not trained again and again
    monkeypatch.setattr(study_run, '_train', lambda *args: 1.0)
    with pytest.raises(ValueError, match='needs the KeepPredictionsHook'):
        study_run._finetune(Job('finetune', 'random', 1), lambda done, state: None)


def test_a_trial_that_diverges_is_lost_and_the_study_is_not(study_run: StudyRun):
    job, options = Job('trial', 'soco', 0), study_run.study.methods['soco'].options
    with study_run._may_diverge(job, options[0]):
        raise DivergedError('trial failed. Its end: error: The loss is not finite since iteration 7.')
    assert 'since iteration 7' in study_run.records[job.key]['lost']
    with pytest.raises(ValueError, match='not finite'), study_run._may_diverge(job, options[0]):
        raise ValueError('whatever a log says of not finite, another failure fails the study')
    for i, knn in ((1, 0.2), (2, 0.3)):
        study_run.records.add(Job('trial', 'soco', i).key,
                              dict(options=options[i], values={'knn_backbone': knn}))
    assert study_run._chosen('trial', 'soco', options) == options[2]
    for i in (1, 2):
        study_run.records.add(Job('trial', 'soco', i).key,
                              dict(options=options[i], values={}, lost='not finite'))
    with pytest.raises(ValueError, match='All trials of soco diverged'):
        study_run._chosen('trial', 'soco', options)
    with pytest.raises(ValueError, match='disk'), study_run._may_diverge(job, {}):
        raise ValueError('the disk is full')


def test_a_detector_is_chosen_by_its_last_point():
    assert score_of_trial('finetune_trial', {'box_AP50@100': 0.5, 'box_AP50@900': 0.2,
                                             'box_AP@900': 0.1}) == 0.2
