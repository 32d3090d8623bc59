# ImageNet without labels for SoCo*: four views.
_base_ = 'imagenet_soco.py'
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=224, blur_prob=1.0),  # the whole image, aspect ratio not kept
    dict(size=224, area=(0.5, 1.0), blur_prob=0.1, solarize_prob=0.2),
    dict(size=192, area=(0.5, 1.0), blur_prob=0.1, solarize_prob=0.2),
    # the crop and boxes of the second view at half its size, with independent colours
    dict(size=112, same_window_as=1, blur_prob=0.1, solarize_prob=0.2),
]
