# What makes features collapse, at the sizes of a CPU: one factor at a time, from base.py.
#
#   python tools/benchmarks/collapse_study.py configs/benchmarks/collapse_study/study_cpu.py \
#       --data DIR --weights work_dirs/lite0.pth
#
# DIR contains cards/train.json with cards/images/, and photos/ (any unlabelled images).
lr = 'optim_wrapper.optimizer.lr'
decay = 'optim_wrapper.optimizer.weight_decay'
views = 'train_dataloader.dataset.pipeline.1.views'
lite0 = 'configs/benchmarks/collapse_study/base_lite0.py'
large = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey_prob=0.2)
none = dict(brightness=0, contrast=0, saturation=0, hue=0, grey_prob=0, blur_prob=0)


def each_view(**changes):
    """Return the options that change all three views."""
    return {f'{views}.{i}.{key}': value for i in range(3) for key, value in changes.items()}


def epochs(n):
    """Return the options of a length, with one epoch of warm-up."""
    return {'train_cfg.max_epochs': n, 'param_scheduler.0.share': 1 / n,
            'param_scheduler.1.begin': 1 / n}


def optimiser(**changes):
    """Return the options of another optimiser."""
    return {'optim_wrapper.optimizer': dict(_delete_=True, **changes)}


def terms(variance, covariance):
    """Return the options of the terms on the projections, with these weights."""
    return {'model.regulariser': dict(_delete_=True, type='VarianceCovariance',
                                      variance_weight=variance,
                                      covariance_weight=covariance)}


study = dict(
    name='collapse_study_cpu',
    base='configs/benchmarks/collapse_study/base.py',
    data='cards/train.json',
    workers=2,
    runs=dict(
        base=dict(group='base'),
        seed_1=dict(group='base', options={'randomness.seed': 1}),
        var1_cov004=dict(group='terms', options=terms(1, 0.04)),
        var1_cov0=dict(group='terms', options=terms(1, 0)),
        var0_cov004=dict(group='terms', options=terms(0, 0.04)),
        var025_cov001=dict(group='terms', options=terms(0.25, 0.01)),
        var4_cov016=dict(group='terms', options=terms(4, 0.16)),
        var1_cov016=dict(group='terms', options=terms(1, 0.16)),
        var1_cov064=dict(group='terms', options=terms(1, 0.64)),
        var1_cov256=dict(group='terms', options=terms(1, 2.56)),
        batch_8=dict(group='batch', options={'train_dataloader.batch_size': 8}),
        batch_32=dict(group='batch', options={'train_dataloader.batch_size': 32, **epochs(12)}),
        batch_64=dict(group='batch', options={'train_dataloader.batch_size': 64, **epochs(24)}),
        proposals_1=dict(group='proposals', options={
            'train_dataloader.dataset.pipeline.1.num_proposals': 1}),
        proposals_2=dict(group='proposals', options={
            'train_dataloader.dataset.pipeline.1.num_proposals': 2}),
        proposals_8=dict(group='proposals', options={
            'train_dataloader.dataset.pipeline.1.num_proposals': 8}),
        rate_1e4=dict(group='rate', options={lr: 1e-4}),
        rate_3e4=dict(group='rate', options={lr: 3e-4}),
        rate_3e3=dict(group='rate', options={lr: 3e-3}),
        sgd_005=dict(group='optimiser', options=optimiser(
            type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4)),
        sgd_05=dict(group='optimiser', options=optimiser(
            type='SGD', lr=0.5, momentum=0.9, weight_decay=1e-4)),
        lars_1=dict(group='optimiser', options=optimiser(
            type='SoCoLARS', lr=1.0, momentum=0.9, weight_decay=1e-5)),
        lars_8=dict(group='optimiser', options=optimiser(
            type='SoCoLARS', lr=8.0, momentum=0.9, weight_decay=1e-5)),
        decay_0=dict(group='weight decay', options={decay: 0.}),
        decay_01=dict(group='weight decay', options={decay: 0.1}),
        decay_without_norms=dict(group='weight decay', options={
            'optim_wrapper.paramwise_cfg': dict(norm_decay_mult=0., bias_decay_mult=0.)}),
        predictor_01=dict(group='predictor', options={
            'optim_wrapper.paramwise_cfg': dict(custom_keys={'head.predictor': dict(lr_mult=0.1)})}),
        predictor_10=dict(group='predictor', options={
            'optim_wrapper.paramwise_cfg': dict(custom_keys={'head.predictor': dict(lr_mult=10.)})}),
        momentum_0=dict(group='momentum', options={'default_hooks.momentum.momentum': 0.}),
        momentum_099=dict(group='momentum', options={'default_hooks.momentum.momentum': 0.99}),
        momentum_0996=dict(group='momentum', options={'default_hooks.momentum.momentum': 0.996}),
        projector_layer_norm=dict(group='BN', options={
            'model.projector.norm_cfg': dict(_delete_=True, type='LN')}),
        predictor_layer_norm=dict(group='BN', options={
            'model.head.predictor.norm_cfg': dict(_delete_=True, type='LN')}),
        projector_last_bn=dict(group='BN', options={'model.projector.with_last_bn': True}),
        zero_init=dict(group='start', options={'model.backbone.zero_init_residual': True}),
        lite0_random=dict(group='start', config=lite0),
        lite0_imagenet=dict(group='start', config=lite0, weights=True),
        colours_full=dict(group='views', options=each_view(**large)),
        colours_none=dict(group='views', options=each_view(**none)),
        crops_small=dict(group='views', options=each_view(area=(0.2, 0.7))),
        views_96=dict(group='views', options={
            f'{views}.0.size': 96, f'{views}.1.size': 96, f'{views}.2.size': 64,
            'model.roi_head.bbox_roi_extractor.level_sizes': (20, 41, 82)}),
        photos_8=dict(group='photos', photos=8, options={'train_dataloader.dataset.repeat': 34}),
        photos_32=dict(group='photos', photos=32, options={'train_dataloader.dataset.repeat': 8}),
        photos_1141=dict(group='photos', data='photos', options=epochs(2)),
        epochs_24=dict(group='length', options=epochs(24)),
    ))
