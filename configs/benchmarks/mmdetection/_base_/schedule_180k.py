# Detectron2's 2x schedule: 180k iterations of 16 images.
_base_ = 'schedule_90k.py'
_base_.param_scheduler[0].share = 1 / 180  # also 1000 iterations
_base_.train_cfg.max_iters = 180000
