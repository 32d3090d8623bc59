# 24k iterations of 16 images: the MoCo authors' schedule for VOC in detectron2.
_base_ = 'schedule_90k.py'
_base_.param_scheduler[0].end = 101  # full learning rate at iteration 100
_base_.param_scheduler[1].end = 24000
_base_.param_scheduler[1].milestones = [18000, 22000]
_base_.train_cfg.max_iters = 24000
_base_.train_cfg.val_interval = 4000
