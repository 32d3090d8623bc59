# ImageNet without labels for SoCo-C4: two views, larger crops, cutout inside the boxes.
_base_ = 'imagenet_soco.py'
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=224, blur_prob=1.0),  # the whole image, aspect ratio not kept
    dict(size=224, area=(0.6, 1.0), blur_prob=0.1, solarize_prob=0.2),
]
_base_.train_dataloader.dataset.pipeline[2].prob = 0.5
