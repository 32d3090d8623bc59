# LARS, 100 epochs: lars_400e.py with a shorter cosine.
_base_ = 'lars_400e.py'
_base_.param_scheduler[1].end = 100
_base_.param_scheduler[1].T_max = 90
_base_.train_cfg.max_epochs = 100
