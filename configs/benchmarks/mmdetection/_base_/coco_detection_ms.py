# coco_instance_ms.py with boxes only.
_base_ = 'coco_instance_ms.py'
_base_.train_dataloader.dataset.pipeline[1].with_mask = False
_base_.val_dataloader.dataset.pipeline[2].with_mask = False
_base_.test_dataloader.dataset.pipeline[2].with_mask = False
_base_.val_evaluator.metric = 'bbox'
_base_.test_evaluator.metric = 'bbox'
