"""The config of a study: its jobs, and errors in it."""
from pathlib import Path

import pytest
from small import ROOT

from projects.soco.study.plan import Job, read_study

STUDIES = sorted((ROOT / 'configs/benchmarks/transfer_study').glob('study_*.py'))


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_needs_come_first_and_each_job_once(path: Path):
    study = read_study(path)
    jobs = list(study.jobs())
    assert len({job.key for job in jobs}) == len(jobs)
    for i, job in enumerate(jobs):
        assert set(study.needs(job)) <= set(jobs[:i]), job
    # every arm is scored before and after fine-tuning, at 100 % and 25 % of the labels
    for arm in study.arms:
        for seed in study.seeds:
            assert Job('objects', arm, seed) in jobs
            assert {Job('finetune', arm, seed, share) for share in (100, 25)} <= set(jobs)


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_the_same_tuning_budget_for_every_arm(path: Path):
    study = read_study(path)
    assert len({len(method.options) for method in study.methods.values()}) == 1
    rates = [[o['optim_wrapper.optimizer.lr'] for o in m.options] for m in study.methods.values()]
    assert all(r == rates[0] for r in rates)
    trials = [job for job in study.jobs() if job.kind == 'finetune_trial']
    assert len(trials) == len(study.arms) * (len(study.detector_options) > 1 and
                                             len(study.detector_options))
    assert len(study.seeds) >= 3


def test_random_then_byol_then_whole_soco_come_first():
    jobs = [job for job in read_study(STUDIES[0]).jobs() if job.kind == 'objects']
    assert [job.name for job in jobs[:3]] == ['random', 'byol', 'soco']
    shares = [job.share for job in read_study(STUDIES[0]).jobs() if job.kind == 'finetune']
    assert shares == sorted(shares, reverse=True)


def test_keys_name_folders():
    assert Job('trial', 'byol', 2).key == 'trial/byol/options2'
    assert Job('pretrain', 'soco', 1).key == 'pretrain/soco/seed1'
    assert Job('finetune', 'soco', 0, 25).key == 'finetune/soco/25percent/seed0'
    assert Job('finetune_trial', 'soco', 0).key == 'finetune_trial/soco/options0'


def test_the_fingerprint_is_of_what_results_depend_on(tmp_path: Path):
    def changed(text: str) -> str:
        path = tmp_path / 'study.py'
        path.write_text(f"_base_ = '{STUDIES[0]}'\nstudy = dict({text})\n")
        return read_study(path).fingerprint()

    same = read_study(STUDIES[0]).fingerprint()
    assert changed('') == changed("workers=1, order=[], references=['soco']") == same
    assert len({same, changed('epochs=3'), changed('resamples=5'), changed('seeds=[5]'),
                changed("detector='configs/benchmarks/transfer_study/mask-rcnn_r50.py'")}) == 5


WRONG = [
    ('seeds=[0, 0]', 'seeds must be different'),
    ("order=[dict(stage='objects', arms=['nobody'])]", "no arm 'nobody'"),
    ("order=[dict(stage='judge', arms=['random'])]", r'order\[0\] must have a stage'),
    ("order=[dict(stage='finetune', arms=['random'], share=0)]", r'order\[0\]'),
    ("arms=dict(random=dict(title='random', parts=['backbone']))", 'arms.random: set a method'),
    ("arms=dict(random=dict(title='r', method='soco', parts=['tail']))", "contains 'tail'"),
    ("arms=dict(random=dict(name='random'))", 'arms.random: title is missing; name is not known'),
    ("methods=dict(soco=dict(config='x.py', boxes='grid'))", 'methods.soco.boxes must be one of'),
    ("methods=dict(soco=dict(config='x.py', options=[]))", 'options is empty'),
    ("colour='red'", 'colour is not known'),
]


@pytest.mark.parametrize('change, message', WRONG, ids=[w[0][:40] for w in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, change: str, message: str):
    path = tmp_path / 'study.py'
    path.write_text(f"_base_ = '{STUDIES[0]}'\nstudy = dict({change})\n".replace(
        'methods=dict(', 'methods=dict(_delete_=True, ').replace('arms=dict(random', 'arms=dict('
        '_delete_=True, random'))
    with pytest.raises(ValueError, match=message):
        read_study(path)


def test_files_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match='There is no study at'):
        read_study(tmp_path / 'none.py')
    path = tmp_path / 'study.py'
    path.write_text(f"_base_ = '{STUDIES[0]}'\nstudy = dict(detector='nowhere.py')\n")
    with pytest.raises(FileNotFoundError, match='nowhere.py, which does not exist'):
        read_study(path)
    path.write_text('name = "x"\n')
    with pytest.raises(ValueError, match='no dict named study'):
        read_study(path)
