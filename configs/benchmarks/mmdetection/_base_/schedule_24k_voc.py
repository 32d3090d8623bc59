# 24k iterations of 16 images: the MoCo authors' schedule for VOC in detectron2.
_base_ = 'schedule_90k.py'
_base_.param_scheduler[0].share = 1 / 240  # full learning rate at iteration 100
_base_.param_scheduler[1].shares = [18 / 24, 22 / 24]
_base_.train_cfg.max_iters = 24000
_base_.train_cfg.val_interval = 4000
