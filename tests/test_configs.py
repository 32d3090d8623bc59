"""All pretraining configs: what they change, that they train, and that each change takes effect."""
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small import ROOT, make_photos, make_store
from torch.utils.data import default_collate

from projects.soco.compat.cpu import cpu_config
from projects.soco.datasets import SampleKey
from projects.soco.engine import ViewDrawer

CONFIGS = ROOT / 'configs'
RECIPES = sorted(path.stem for path in CONFIGS.glob('soco_*.py'))
SMALL = {'soco_r18_fpn_quickstart', 'soco_effnetlite0_fpn_own_photos'}  # not the paper's
ABLATIONS = sorted(path.stem for path in (CONFIGS / 'ablations').glob('*.py'))
VIEWS = 'train_dataloader.dataset.pipeline.1'
EXTRACTOR = 'model.roi_head.bbox_roi_extractor'
PARENTS = {f'components_{n}': f'components_{n + 1}' for n in range(1, 6)}  # each removes one component

# What each ablation changes in its parent: leaf -> value, or None if the leaf is removed.
CHANGES = {
    'components_1_whole_image': {
        'train_dataloader.dataset.pipeline.0.max_proposals': 0, f'{VIEWS}.num_proposals': 1},
    'components_2_selective_search': {
        'model.neck': None, 'model.backbone.out_indices': (3, ), 'model.projector.in_channels': 2048,
        f'{EXTRACTOR}.out_channels': 2048, f'{EXTRACTOR}.featmap_strides': [32],
        f'{EXTRACTOR}.level_sizes': ()},
    'components_3_fpn': {'model.roi_head.bbox_head': None, 'model.projector.in_channels': 256},
    'components_4_head': {f'{EXTRACTOR}.level_sizes': (0, 0, 0)},
    'components_5_scale_aware': {f'{VIEWS}.jitter_prob': 0.0},
    'components_6_box_jitter': {f'{VIEWS}.views.2': None},
    'view3_size_96': {f'{VIEWS}.views.2.size': 96},
    'view3_size_160': {f'{VIEWS}.views.2.size': 160},
    'view3_size_192': {f'{VIEWS}.views.2.size': 192},
    'batch_512': {'train_dataloader.batch_size': 64, 'optim_wrapper.optimizer.lr': 2.0},
    'batch_1024': {'train_dataloader.batch_size': 128, 'optim_wrapper.optimizer.lr': 4.0},
    'batch_4096': {'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.optimizer.lr': 16.0},
    'proposals_random': {
        'train_dataloader.dataset.proposals': 'data/proposals/imagenet_train_random.arrow'},
    'num_proposals_1': {f'{VIEWS}.num_proposals': 1},
    'num_proposals_8': {f'{VIEWS}.num_proposals': 8},
    'num_proposals_16': {f'{VIEWS}.num_proposals': 16},
    'momentum_098': {'default_hooks.momentum.momentum': 0.98},
    'momentum_0993': {'default_hooks.momentum.momentum': 0.993},
}


def read(name: str) -> Config:
    folder = CONFIGS / 'ablations' if name in ABLATIONS else CONFIGS
    return Config.fromfile(folder / f'{name}.py')


def leaves(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the values of a config with their dotted paths; only lists of dicts are descended into."""
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, (list, tuple)) and node and isinstance(node[0], dict):
        items = list(enumerate(node))
    else:
        yield path, node
        return
    for key, value in items:
        yield from leaves(value, f'{path}.{key}' if path else str(key))


def test_the_recipes_are_there():
    assert {'soco_r50_fpn_100e', 'soco_r50_fpn_400e', 'soco_r50_fpn_star_400e', 'soco_r50_c4_100e',
            'soco_r50_c4_400e', 'soco_r50_fpn_100e_coco', 'soco_r101_fpn_400e',
            'soco_r50_fpn_without_p2_400e', *SMALL} == set(RECIPES)
    assert set(CHANGES) == set(ABLATIONS)


def test_the_readme_has_the_epochs_of_the_configs():
    rows = re.findall(r'^\| `configs/(\S+)\.py` \| (.+?) \|', (ROOT / 'README.md').read_text(), re.M)
    assert len(rows) == 5
    for name, epochs in rows:
        start, _, rest = name.partition('{')
        endings, _, end = rest.partition('}')
        names = [f'{start}{ending}{end}' for ending in endings.split(',')]
        assert [read(each).train_cfg.max_epochs for each in names] == list(
            map(int, re.findall(r'\d+', epochs))), name


@pytest.mark.parametrize('name', RECIPES + ABLATIONS)
def test_a_config_opens_with_its_command(name: str):
    path = CONFIGS / ('ablations' if name in ABLATIONS else '') / f'{name}.py'
    head = ' '.join(path.read_text().split('\n_base_')[0].split())
    assert f'bash tools/dist_train.sh configs/{path.relative_to(CONFIGS)}' in head.replace('\\ # ', '')
    if name in RECIPES and name not in SMALL:
        cfg = read(name)
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 2048
        assert cfg.optim_wrapper.optimizer.lr == 2048 / 256


@pytest.mark.parametrize('name', ABLATIONS)
def test_an_ablation_changes_what_its_name_says_and_nothing_else(name: str):
    parent = next((full for full in ABLATIONS
                   if full.startswith(PARENTS.get(name[:len('components_n')], '-'))),
                  'soco_r50_fpn_100e')
    ours, theirs = (dict(leaves(read(n)._cfg_dict.to_dict())) for n in (name, parent))
    changed = {k for k in {*ours, *theirs} if k not in ours or k not in theirs or ours[k] != theirs[k]}
    explained = set()
    for key, value in CHANGES[name].items():
        inside = {k for k in changed if k == key or (value is None and k.startswith(key + '.'))}
        assert inside, key
        assert all(ours.get(k) == value for k in inside)
        explained |= inside
    assert changed == explained


class Step(NamedTuple):
    """Record of one training step of a config."""

    cfg: Config
    inputs: list[torch.Tensor]
    bboxes: torch.Tensor
    logged: dict[str, float]
    model: torch.nn.Module
    moved: set
    roi_levels: set
    steps: int


def train_a_step(name: str, folder: Path, iterations: int = 1) -> Step:
    """Train a config for some iterations on small random photos, batch size 2, on a CPU."""
    make_photos(folder / 'photos', 2 * iterations, size=(300, 240))
    make_store(folder / 'proposals.arrow', folder / 'photos')
    cfg = cpu_config(read(name))
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(folder / 'photos'),
        'train_dataloader.dataset.proposals': str(folder / 'proposals.arrow'),
        'train_dataloader.dataset.repeat': 1, 'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'param_scheduler': [], 'train_cfg.max_epochs': 1, 'work_dir': str(folder / 'work'),
        'log_level': 'ERROR', 'default_hooks.logger.interval': 1,
        'experiment_name': f'{name}_{folder.name}',
        # not tested here; saves disk space and time
        'default_hooks.checkpoint': None})
    shrink(cfg, name)
    runner = Runner.from_cfg(cfg)
    before: dict[str, torch.Tensor] = {}
    seen: dict[str, Any] = {}
    steps: list[int] = []

    def remember(module, args, kwargs) -> None:
        before.update({n: p.detach().clone() for n, p in runner.model.named_parameters()})
        seen.setdefault('inputs', args[0] if args else kwargs['inputs'])
        seen.setdefault('bboxes', args[1] if args else kwargs['bboxes'])

    runner.model.register_forward_pre_hook(remember, with_kwargs=True)
    extractor, levels = runner.model.roi_head.bbox_roi_extractor, set()
    choose = extractor.map_roi_levels

    def watch(*args) -> torch.Tensor:
        chosen = choose(*args)
        levels.update(chosen.tolist())
        return chosen

    extractor.map_roi_levels = watch
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    step = runner.optim_wrapper.optimizer.step
    runner.optim_wrapper.optimizer.step = lambda *args: steps.append(1) or step(*args)
    runner.train()
    logged = {key: history.data[0][0] if hasattr(history, 'data') else history
              for key, history in runner.message_hub.log_scalars.items()}
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    return Step(cfg, seen['inputs'], seen['bboxes'], logged, runner.model, moved, levels, len(steps))


def scale_of(name: str) -> float:
    """Recipes run at their own size, ablations at half of it, boxes and borders of levels included."""
    return 1 if name in RECIPES else 0.5


def shrink(cfg: Config, name: str) -> None:
    """Scale the views; a quarter of the backbone's width for ablations with an FPN: none changes it."""
    for view in cfg.train_dataloader.dataset.pipeline[1].views:
        view.size = round(view.size * scale_of(name))
    extractor = cfg.model.roi_head.bbox_roi_extractor
    if 'level_sizes' in extractor:
        extractor.level_sizes = [size * scale_of(name) for size in extractor.level_sizes]
    if name not in RECIPES and cfg.model.neck:
        cfg.model.backbone.base_channels = 16
        cfg.model.neck.in_channels = [channels // 4 for channels in cfg.model.neck.in_channels]


def parts_of(cfg: Config) -> list[str]:
    """Return prefixes of parameters that the first step must change.

    Not all parameters can change, because zero-initialised residual branches get no gradient.
    """
    first = 'timm_model.conv_stem' if cfg.model.backbone.type == 'mmcls.TIMMBackbone' else 'conv1'
    parts = [f'backbone.{first}', 'projector.fc0', 'head.predictor.fc1']
    if cfg.model.neck:
        parts += ['neck.lateral_convs.3', 'neck.fpn_convs.3']
    if cfg.model.roi_head.type == 'SoCoC4RoIHead':
        parts.append('roi_head.shared_head.layer4.0')
    elif cfg.model.roi_head.bbox_head:
        parts.append('roi_head.bbox_head.shared_fcs')
    return parts


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES + ABLATIONS)
def test_a_training_step_in_which_the_knob_is_felt(name: str, tmp_path: Path):
    accumulated = read(name).optim_wrapper.get('accumulative_counts', 1)
    step = train_a_step(name, tmp_path, iterations=accumulated)
    pairs = len(step.inputs) - 1
    assert (step.model.regulariser is not None) == (name in SMALL)
    loss = step.logged['train/loss'] - step.logged.get('train/loss_regulariser', 0)
    assert -4 * pairs <= loss <= 4 * pairs
    assert 0 < step.logged['train/obj_std'] <= 1
    assert step.steps == 1 and step.logged['train/lr'] == step.cfg.optim_wrapper.optimizer.lr
    for part in parts_of(step.cfg):
        assert any(key.startswith(part) for key in step.moved), part
    assert not any(key.startswith('target.') for key in step.moved)
    check_shapes(step, name)
    if name.startswith('components_'):
        check_components(step, int(name.split('_')[1]))


def check_shapes(step: Step, name: str) -> None:
    """Check that views, boxes and momentum match the config's name."""
    sizes, k, momentum = [224, 224, 112], 4, 0.99
    if name.startswith('view3_size_'):
        sizes[2] = int(name.rsplit('_', 1)[1])
    if name.startswith('num_proposals_'):
        k = int(name.rsplit('_', 1)[1])
    if name.startswith('momentum_'):
        momentum = float('0.' + name.rsplit('_', 1)[1][1:])
    if name == 'components_1_whole_image':
        k = 1
    if name.startswith('components_') or '_c4_' in name:
        sizes = [224, 224]
    if '_star_' in name:
        sizes = [224, 224, 192, 112]
    if 'quickstart' in name:
        sizes, momentum = [64, 64, 48], 0.9
    if 'own_photos' in name:
        sizes, k = [96, 96, 64], 8
    sizes = [round(size * scale_of(name)) for size in sizes]
    assert [tuple(view.shape) for view in step.inputs] == [(2, 3, s, s) for s in sizes]
    assert step.bboxes.shape == (2, len(sizes) - 1, 2, k, 4)
    assert step.logged['train/momentum'] == momentum
    if '_star_' in name:
        # pairs (1, 2) and (1, 4) have the same boxes
        assert torch.equal(step.bboxes[:, 0, 0], step.bboxes[:, 2, 0])
    if '_c4_' in name:
        assert step.logged['train/loss'] >= -4 and not step.model.with_neck


def check_components(step: Step, n: int) -> None:
    """Check that row n of the ablation table has the first n components and no others."""
    first = step.bboxes[:, :, 0]
    whole = torch.tensor([0., 0., 112., 112.]).expand_as(first)
    assert torch.equal(first, whole) == (n < 2)
    assert step.model.with_neck == (n >= 3)
    assert (step.model.roi_head.bbox_head is not None) == (n >= 4)
    assert (len(step.roi_levels) > 1) == (n >= 5)
    if n in (3, 4):
        assert step.roi_levels == {3}


def test_without_jitter_the_boxes_are_the_proposals(tmp_path: Path):
    """Six proposals have at most six sizes in the first view without jitter, and more with jitter."""
    from mmengine.registry import init_default_scope

    from projects.soco.datasets import SoCoDataset
    make_photos(tmp_path / 'photos', 1, size=(300, 240))
    store = make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos', boxes_per_photo=6)
    init_default_scope('mmselfsup')
    sizes = {}
    for name in ('components_5_scale_aware', 'components_6_box_jitter'):
        cfg = read(name).train_dataloader.dataset
        cfg.update(data_root=str(tmp_path / 'photos'), proposals=str(store))
        cfg.pop('type')
        dataset = SoCoDataset(**cfg)
        first = torch.stack([torch.as_tensor(dataset[SampleKey(0, epoch, 0)]['bboxes'])[:, 0]
                             for epoch in range(8)]).flatten(0, 2)
        sizes[name] = {tuple(s.tolist()) for s in (first[:, 2:] - first[:, :2]).round(decimals=2)}
    assert len(sizes['components_5_scale_aware']) <= 6 < len(sizes['components_6_box_jitter'])


def test_the_100_epoch_recipe_differs_in_schedule_and_cutout():
    long, short = (dict(leaves(read(f'soco_r50_fpn_{n}e')._cfg_dict.to_dict())) for n in (400, 100))
    assert {k: (long[k], short[k]) for k in long if long[k] != short[k]} == {
        'train_dataloader.dataset.pipeline.2.prob': (0.0, 0.5), 'train_cfg.max_epochs': (400, 100),
        'param_scheduler.0.share': (10 / 400, 10 / 100),
        'param_scheduler.1.begin': (10 / 400, 10 / 100)}


def test_the_c4_recipes_differ_in_schedule_only():
    long, short = (dict(leaves(read(f'soco_r50_c4_{n}e')._cfg_dict.to_dict())) for n in (400, 100))
    assert {k for k in long if long[k] != short[k]} == {
        'train_cfg.max_epochs', 'param_scheduler.0.share', 'param_scheduler.1.begin'}
    views = short['train_dataloader.dataset.pipeline.1.views.1.area']
    assert views == (0.6, 1.0) and short['train_dataloader.dataset.pipeline.2.prob'] == 0.5


def test_the_recipe_without_p2_differs_in_what_its_name_says():
    whole, fast = (dict(leaves(read(f'soco_r50_fpn_{n}400e')._cfg_dict.to_dict()))
                   for n in ('', 'without_p2_'))
    assert {k: v for k, v in fast.items() if whole.get(k, ()) != v} == {
        f'{VIEWS}.views.0.finest_level': 1, f'{VIEWS}.views.1.finest_level': 1}
    assert set(whole) < set(fast)


@pytest.mark.parametrize('name', ['soco_r50_fpn_400e', 'soco_r50_fpn_star_400e', 'soco_r50_c4_100e'])
def test_a_view_is_added_dropped_or_resized_in_one_place(name: str, tmp_path: Path):
    """A child config edits the entry of the view only; data, model and pictures follow."""
    views = '_base_.train_dataloader.dataset.pipeline[1].views'
    make_photos(tmp_path / 'photos', 2, size=(300, 240))
    store = make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')
    before = len(read(name).train_dataloader.dataset.pipeline[1].views)
    for change, sizes in ((f'{views} += [dict(size=64, area=(0.3, 0.8), blur_prob=0.5)]', {before: 64}),
                          (f'{views}.pop()', {}), (f'{views}[1].size = 96', {1: 96})):
        (tmp_path / 'child.py').write_text(f"_base_ = '{CONFIGS / name}.py'\n{change}\n")
        cfg = cpu_config(Config.fromfile(tmp_path / 'child.py'))
        if len(cfg.train_dataloader.dataset.pipeline[1].views) < 2:
            continue  # at least two views are needed
        cfg.train_dataloader.dataset.update(data_root=str(tmp_path / 'photos'), proposals=str(store))
        drawer = ViewDrawer.from_config(cfg)
        batch = default_collate([drawer.dataset[SampleKey(row)] for row in range(2)])
        prepared = drawer.preprocessor(batch, True)
        shapes = [tuple(view.shape) for view in prepared['inputs']]
        assert prepared['bboxes'].shape[1] == len(shapes) - 1 == len(prepared['finest_levels']) - 1
        assert all(shapes[v] == (2, 3, size, size) for v, size in sizes.items())
        assert drawer.draw(SampleKey(0)).ndim == 3


def test_a_child_config_changes_a_hook_in_one_line(tmp_path: Path):
    (tmp_path / 'child.py').write_text(
        f"_base_ = '{CONFIGS}/soco_r50_fpn_400e.py'\ndefault_hooks = dict(collapse=dict(patience=9))\n")
    base, child = (dict(leaves(Config.fromfile(path)._cfg_dict.to_dict())) for path in (
        CONFIGS / 'soco_r50_fpn_400e.py', tmp_path / 'child.py'))
    assert {key for key in child if base.get(key) != child[key]} == {'default_hooks.collapse.patience'}


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.py')), ids=lambda path: path.stem)
def test_no_config_addresses_a_hook_by_its_position(path: Path):
    assert not re.search(r'custom_hooks', path.read_text())


def test_last_norms_of_c4_s_head_start_at_zero():
    from mmengine.registry import MODELS, init_default_scope
    cfg = cpu_config(read('soco_r50_c4_100e')).model.roi_head
    init_default_scope('mmselfsup')
    head = MODELS.build(cfg)
    head.init_weights()
    for block in head.shared_head.layer4:
        assert not block.bn3.weight.any() and block.bn2.weight.all()
