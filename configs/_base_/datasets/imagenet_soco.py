# ImageNet without labels, three views (paper, section 3.2).
#
# data/imagenet/train/**/*.JPEG            the images
# data/proposals/imagenet_train.arrow      python tools/generate_proposals.py \
#                                              data/imagenet/train data/proposals/imagenet_train.arrow
train_dataloader = dict(
    batch_size=256,
    num_workers=4,  # about 2400 photos/s; each holds two batches in /dev/shm
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='SoCoDataset',
        data_root='data/imagenet/train',
        proposals='data/proposals/imagenet_train.arrow',
        max_bad_share=0.001,  # stop above this share of unusable images; small sets allow none
        pipeline=[
            dict(type='LoadProposals'),
            dict(
                type='ProposalViews',
                # Each entry defines one view: crop window, size and colours.
                views=[
                    dict(size=224, blur_prob=1.0),  # the whole image, aspect ratio not kept
                    dict(size=224, area=(0.5, 1.0), blur_prob=0.1, solarize_prob=0.2),
                    dict(size=112, area=(0.5, 1.0), blur_prob=0.1, solarize_prob=0.2),
                ],
                num_proposals=4,
                jitter_prob=0.5,
                jitter_ratio=0.1),
            dict(type='ProposalCutout', prob=0.0, area=(0.1, 0.3)),
            dict(type='PackSoCoInputs'),
        ]))
