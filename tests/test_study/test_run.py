"""A study: its plan, its pretrainings, its pooled differences."""
import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small import ROOT, write_set

from projects.soco.detectors.work_dir import WorkDir
from projects.soco.evaluation.cost import Cost
from projects.soco.launch.errors import Stopped
from projects.soco.proposals.store import ProposalStore
from projects.soco.study import run as run_module
from projects.soco.study import training
from projects.soco.study.plan import PARTS, CompareJob, DetectorJob, PretrainJob, read_study
from projects.soco.study.records import Records
from projects.soco.study.run import StudyRun
from projects.soco.study.summary import draw, draw_differences, pooled_differences, tables

STUDY = ROOT / 'configs/benchmarks/transfer_study/own_photos.py'
PRETRAINING = ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py'


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


def write_study(folder: Path, changes: str = '') -> Path:
    """Write a study of two sets, with the starts and pretrainings of the real one."""
    for name in ('cats', 'dogs'):
        write_set(folder / name)
    path = folder / 'study.py'
    path.write_text(f"""_base_ = '{STUDY}'
one = ['imagenet', 'soco', 'byol', 'soco_random_boxes']
study = dict(
    iters=8,
    sets=dict(_delete_=True, **{{name: dict(images=f'{{name}}/photos', train=f'{{name}}/train.json',
                                          val=f'{{name}}/val.json') for name in ('cats', 'dogs')}}),
    starts=dict(byol=dict(until=4), soco_random_boxes=dict(until=4), soco_backbone=dict(until=4),
                soco_before=dict(until=4)),
    steps=[dict(starts=one, shares=[50], seeds=[0, 1])])
{changes}
""")
    return path


def test_the_study_of_own_photos_is_consistent():
    study = read_study(STUDY)
    jobs = study.jobs()
    assert len(jobs) == len(set(jobs))
    detectors = [job for job in jobs if isinstance(job, DetectorJob)]
    pretrainings = [job for job in jobs if isinstance(job, PretrainJob)]
    assert len(detectors) == 4 * (3 * 3 * 3 + 4 * 3 + 3) and len(pretrainings) == 4 * 5
    for i, job in enumerate(jobs):
        assert set(study.needs(job)) <= set(jobs[:i])
    assert [job.job.start for job in detectors[:2]] == ['imagenet', 'soco'] and study.needs_weights
    settings = {job.job for job in detectors if job.data == 'cards'}
    assert settings == {job.job for job in detectors if job.data == 'aquarium'}


@pytest.mark.parametrize('change, message', [
    ("study['pretrainings'] = dict(soco=dict(boxes='grid'))", 'boxes must be one of selective_search'),
    ("study['pretrainings'] = dict(soco=dict(epochs=0))", 'epochs must be at least 1, not 0'),
    ("study['sets']['cats'] = dict(study['sets']['cats'], classes='colour')", 'cats.classes must be'),
    ("study['starts'] = dict(soco=dict(parts=['head']))", 'starts.soco.parts must be some of backbone'),
    ("study['starts'] = dict(soco=dict(until=9))", 'until must be within 1 and 8, not 9'),
    ("study['starts'] = dict(soco=dict(weights=True))", 'either from weights or from a pretraining'),
    ("study['starts'] = dict(soco=dict(pretraining='moco'))", "names 'moco', which is none of soco"),
    ("study['pairs'] = [('soco', 'moco')]", r"pairs\[0\] names 'moco'"),
    ("study['steps'] = [dict(starts=['soco'], shares=[0], seeds=[0])]", 'percentages within 1 and 100'),
    ("study['steps'] = [dict(starts=['soco'], shares=[1], seeds=[0], sets=['no'])]", "names 'no'"),
    ("study['detector'] = 'nowhere.py'", 'refers to nowhere.py, which does not exist'),
    ("study['speed'] = 3", 'speed is not known')])
def test_an_inconsistent_study_is_refused(tmp_path: Path, change: str, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_study(write_study(tmp_path, change))


@pytest.fixture
def run(tmp_path: Path) -> StudyRun:
    study = read_study(write_study(tmp_path))
    weights = tmp_path / 'imagenet.pth'
    torch.save(dict(state_dict={'backbone.x': torch.zeros(1)}), weights)
    (tmp_path / 'work').mkdir()
    return StudyRun(study, tmp_path, tmp_path / 'work', Records(tmp_path / 'work/results.json', {}),
                   Console(quiet=True), weights)


def pretend(run: StudyRun, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace trainings by their files: pretrainings, and AP50 of 0.4, for SoCo 0.6."""
    commands = []

    def pretrain(command: list[str], log: Path, *args: object, **kwargs: object) -> None:
        commands.append(command)
        folder = Path(command[command.index('--work-dir') + 1])
        state = {f'{part}.x': torch.full((1, ), len(commands) * 1.) for part in PARTS}
        work = WorkDir.at(folder)
        by_config = command[0] == 'tools/train.py'
        run_dir = folder if by_config else work.run
        run_dir.mkdir(parents=True)
        torch.save(dict(state_dict=state, meta=dict(iter=1)), run_dir / 'epoch_1.pth')
        torch.save(dict(state_dict=state), work.start)
        work.config.write_text(f"_base_ = '{PRETRAINING}'\n")

    def train_detector(train: object, folder: Path, what: str, labels: Path, points: Sequence[int],
                       *args: object) -> tuple:
        level = (.6 if 'soco/' in what else .4) + (.01 if 'seed1' in what else 0)
        values = {f'{measure}@{point}': level for measure in ('box_AP', 'box_AP50')
                  for point in points}
        return 1., values, {key: np.full(50, value) for key, value in values.items()}

    monkeypatch.setattr(run_module, 'run_training', pretrain)
    monkeypatch.setattr(run_module, 'measure_cost',
                        lambda cfg: Cost(1, 2.5 if cfg.model.type == 'SoCo' else 1, {}))
    monkeypatch.setattr(training, 'train_detector', train_detector)
    return commands


def test_all_jobs_of_a_study(run: StudyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands = pretend(run, monkeypatch)
    assert run.run(math.inf)
    assert len(commands) == 6  # three pretrainings of two sets, once each
    by_name = {Path(command[command.index('--work-dir') + 1]).name: command for command in commands}
    for command in commands:  # the tools understand what they are called with
        monkeypatch.setattr('sys.argv', command)
        args = importlib.import_module(f'tools.{Path(command[0]).stem}').parse_args()
        assert args.resume and Path(args.work_dir).parent.name == 'pretraining'
    soco, boxes, byol = (by_name[name] for name in ('soco', 'soco_random_boxes', 'byol'))
    assert soco[0] == boxes[0] == 'tools/pretrain_detector.py' and byol[0] == 'tools/train.py'
    assert boxes[boxes.index('--proposals') + 1].endswith('random.arrow') and '--proposals' not in soco
    assert (run.folder / 'cats/random.arrow').exists() and '--weights' in soco
    assert f'load_from={run.weights}' in byol

    parts = {start: set(torch.load(run.folder / f'cats/starts/{start}.pth')['state_dict'])
             for start in ('soco', 'byol')}
    assert parts == dict(soco={f'{part}.x' for part in PARTS}, byol={'backbone.x'})
    record = run.records['pretrain/cats/soco']
    assert record['photos'] == 4 == len(ProposalStore.open(run.folder / 'cats/random.arrow'))
    assert record['epochs'] == 2560 and record['gflop_per_image'] == 2.5
    assert run.records['pretrain/cats/byol']['gflop_per_image'] == 1
    values = {start: run.results['dogs'][CompareJob(start, 50, 0).key]['values']
              for start in ('soco', 'byol')}
    assert set(values['soco']) - set(values['byol']) == {
        f'{measure}@{point}' for measure in ('box_AP', 'box_AP50') for point in (6, 8)}

    assert run.run(math.inf) and len(commands) == 6  # nothing is done again
    longer = DetectorJob('cats', CompareJob('byol', 50, 0))
    assert run.is_done(longer)
    run.comparisons['cats'].starts['byol'] = run.comparisons['cats'].starts['byol']._replace(until=6)
    assert not run.is_done(longer)  # its record ends at 4
    run.comparisons['cats'].starts['byol'] = run.comparisons['cats'].starts['byol']._replace(until=4)
    pooled = pooled_differences(run.results, run.study.pairs, [50])
    ends = {(row['ours'], row['theirs']): row for row in pooled if row['measure'] == 'box_AP50'}
    assert ends['soco', 'imagenet']['iterations'] == 8 and ends['soco', 'byol']['iterations'] == 4
    assert ends['soco', 'imagenet']['value'] == pytest.approx(.2)
    assert ends['soco', 'imagenet']['by_set'] == pytest.approx(dict(cats=.2, dogs=.2))
    pages = list(run.write_pages())
    assert len(pages) == 2 and 'soco against imagenet' in pages[0].read_text()
    content = dict(titles={name: start.title for name, start in run.study.starts.items()},
                   pooled=pooled, records=run.records.content['records'],
                   sets={name: one.content for name, one in run.results.items()})
    text = '\n'.join(tables(json.loads(json.dumps(content))))
    assert ('| ImageNet → SoCo − ImageNet | 50 % | 8 | **+20.0** (20.0 to 20.0) | +20.0 | +20.0 | 2 |'
            in text)
    assert '| cats | 50 % | ImageNet | 2: 40.5 / 40.5 (2), 4: 40.5' in text
    assert '| byol | cats | 4 | 2560 |' in text
    assert draw(content, tmp_path / 'study.png').stat().st_size > 10_000
    assert draw_differences(content, tmp_path / 'differences.png').stat().st_size > 10_000


def test_a_stopped_pretraining_is_not_a_result(run: StudyRun, monkeypatch: pytest.MonkeyPatch):
    def stop(*args: object) -> None:
        raise Stopped(75)

    monkeypatch.setattr(run_module, 'run_training', stop)
    with pytest.raises(Stopped):
        run._do(PretrainJob('cats', 'soco'), lambda done, state: None)
    assert not run.is_done(PretrainJob('cats', 'soco'))


def test_two_runs_of_a_study_exclude_each_other(run: StudyRun, tmp_path: Path):
    with pytest.raises(ValueError, match='Another study writes into'):
        StudyRun(run.study, tmp_path, run.folder, run.records, run.console, run.weights)


def test_what_was_made_with_other_settings_is_refused(run: StudyRun, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch):
    def again(changes: str) -> StudyRun:
        study = read_study(write_study(tmp_path, changes))
        for records in (run.records, *run.results.values()):
            records._file.close()  # as at the end of a process
        records = Records(run.folder / 'results.json', {})
        return StudyRun(study, tmp_path, run.folder, records, run.console, run.weights)

    run = again('study["pretrainings"] = dict(soco=dict(epochs=7))')  # nothing was made yet
    pretend(run, monkeypatch)
    assert run.run(math.inf)
    same = 'study["pretrainings"] = dict(soco=dict(epochs=7))\n'
    run = again(same + 'study["starts"]["byol"] = dict(until=6)')  # a start may go on
    for change, entry in (
            ('', 'pretrainings.soco'),
            (same + 'study["starts"]["soco"] = dict(parts=["backbone"])', 'starts.soco'),
            (same + 'study["sets"]["cats"]["unlabelled"] = ["more"]', 'sets.cats')):
        with pytest.raises(ValueError, match=f'results of {entry} with other settings'):
            again(change)


def test_a_detector_that_is_to_train_longer_begins_anew_once(run: StudyRun,
                                                             monkeypatch: pytest.MonkeyPatch):
    pretend(run, monkeypatch)
    job = DetectorJob('cats', CompareJob('imagenet', 50, 0))
    run._do(job, None)
    folder = run.comparisons['cats'].folder / job.job.key
    folder.mkdir(parents=True)
    (folder / 'old').touch()
    run._do(job, None)
    assert not folder.exists()  # what the shorter training left
    folder.mkdir()
    (folder / 'iter_2.pth').touch()
    run._do(job, None)
    assert (folder / 'iter_2.pth').exists()  # stopped in the longer one: it goes on
