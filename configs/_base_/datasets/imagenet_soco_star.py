# ImageNet without its labels, as SoCo* sees it: four views.
_base_ = 'imagenet_soco.py'
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=224),  # the whole photo, squashed
    dict(size=224, area=(0.5, 1.0)),
    dict(size=192, area=(0.5, 1.0)),
    dict(size=112, same_window_as=1),  # the second view's crop and boxes, half as large
]
