# Detectron2's 2x schedule: 180k iterations of 16 images.
_base_ = 'schedule_90k.py'
_base_.param_scheduler[1].end = 180000
_base_.param_scheduler[1].milestones = [120000, 160000]
_base_.train_cfg.max_iters = 180000
