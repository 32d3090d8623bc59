import os
import pickle
import shutil
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MMLogger

from projects.soco.engine.checkpoint_hook import AtomicBackend, PlainCheckpointHook, to_plain
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint


def checkpoint(iteration: int) -> dict:
    return dict(state_dict=dict(weight=torch.full((3, ), float(iteration))),
                meta=dict(iter=iteration, epoch=0))


def test_a_checkpoint_with_histories_becomes_plain_and_comes_back(tmp_path):
    history = HistoryBuffer([1.0, 2.5], [1, 1], max_length=10)
    content = dict(
        state_dict=dict(weight=torch.ones(2)), meta=dict(root=Path('a'), classes=('cat', 'dog')),
        message_hub=dict(log_scalars={'train/loss': history},
                         runtime_info=dict(kept=deque([1, 2]), value=np.float64(3), iter=np.int64(4)),
                         resumed_keys={'train/loss': True}))
    hook = PlainCheckpointHook()
    hook.before_save_checkpoint(None, content)
    torch.save(content, tmp_path / 'epoch_1.pth')

    loaded = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert loaded['meta'] == dict(root='a', classes=('cat', 'dog'))
    assert loaded['message_hub']['runtime_info'] == dict(kept=[1, 2], value=3.0, iter=4)
    hook.after_load_checkpoint(None, loaded)
    back = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(back, HistoryBuffer) and back.max_length == 10
    assert back.data[0].tolist() == [1.0, 2.5] and back.current() == 2.5


def test_what_has_no_plain_form_is_refused():
    with pytest.raises(TypeError, match='object'):
        to_plain(dict(a=[object()]))


def test_the_hook_writes_through_the_atomic_backend():
    assert PlainCheckpointHook().backend_args == dict(backend='atomic')


class TestAtomicBackend:

    def test_writes_and_replaces(self, tmp_path):
        backend = AtomicBackend()
        backend.put(b'one', tmp_path / 'folder/file')
        backend.put(b'two', tmp_path / 'folder/file')
        assert (tmp_path / 'folder/file').read_bytes() == b'two'
        assert os.listdir(tmp_path / 'folder') == ['file']

    @pytest.mark.parametrize('broken', ['fsync', 'replace'])
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, broken):
        (tmp_path / 'file').write_bytes(b'old')

        def full(*args) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(f'projects.soco.files.os.{broken}', full)
        with pytest.raises(OSError, match='file could not be written.*No space left.*--resume'):
            AtomicBackend().put(b'new', tmp_path / 'file')
        assert (tmp_path / 'file').read_bytes() == b'old'
        assert os.listdir(tmp_path) == ['file']


def test_too_little_disk_is_told_before_training(tmp_path, monkeypatch):
    from types import SimpleNamespace

    model = torch.nn.Linear(1000, 1000)  # 4 MB of weights, up to 12 MB per checkpoint
    runner = SimpleNamespace(model=model, work_dir=str(tmp_path), logger=MMLogger.get_instance('t'),
                             message_hub=SimpleNamespace(runtime_info={}))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage._replace(free=20 * 2**20))
    with pytest.raises(ValueError, match='20 MiB of free disk.*up to 23 MiB.*--work-dir'):
        PlainCheckpointHook().before_train(runner)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage._replace(free=30 * 2**20))
    PlainCheckpointHook().before_train(runner)


class Planted:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), 'w')


class TestReading:

    def test_reads_a_checkpoint_and_a_bare_state_dict(self, tmp_path):
        torch.save(checkpoint(3), tmp_path / 'a.pth')
        assert read_checkpoint(tmp_path / 'a.pth')['meta']['iter'] == 3
        torch.save(dict(weight=torch.ones(1)), tmp_path / 'b.pth')
        assert list(read_checkpoint(tmp_path / 'b.pth')) == ['state_dict']

    def test_runs_no_code(self, tmp_path):
        for name, save in (('zip.pth', lambda o, p: torch.save(o, p)),
                           ('raw.pth', lambda o, p: p.write_bytes(pickle.dumps(o)))):
            save(dict(state_dict=dict(a=Planted(tmp_path / 'planted'))), tmp_path / name)
            with pytest.raises(ValueError, match=f'{name}.*not loaded'):
                read_checkpoint(tmp_path / name)
        assert not (tmp_path / 'planted').exists()

    def test_names_what_is_no_checkpoint(self, tmp_path):
        torch.save(checkpoint(1), tmp_path / 'whole.pth')
        content = (tmp_path / 'whole.pth').read_bytes()
        files = {'cut.pth': content[:len(content) // 2], 'text.pth': b'hello', 'empty.pth': b''}
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ValueError, match=name):
                read_checkpoint(tmp_path / name)
        torch.save([1, 2], tmp_path / 'list.pth')
        with pytest.raises(ValueError, match='list'):
            read_checkpoint(tmp_path / 'list.pth')
        torch.save(dict(lr=0.1), tmp_path / 'other.pth')
        with pytest.raises(ValueError, match="no `state_dict`.*'lr'"):
            read_checkpoint(tmp_path / 'other.pth')
        with pytest.raises(FileNotFoundError, match='nowhere.pth'):
            read_checkpoint(tmp_path / 'nowhere.pth')


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    assert find_newest_checkpoint(tmp_path) is None
    for name, iteration in (('epoch_1.pth', 10), ('iter_15.pth', 15), ('epoch_2.pth', 20)):
        torch.save(checkpoint(iteration), tmp_path / name)
    torch.save(checkpoint(99), tmp_path / 'somebody_elses.pth')
    assert find_newest_checkpoint(tmp_path).name == 'epoch_2.pth'
    content = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(content[:-200])
    assert find_newest_checkpoint(tmp_path).name == 'iter_15.pth'
