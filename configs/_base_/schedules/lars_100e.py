# LARS, 100 epochs: lars_400e.py with a shorter cosine, and also 10 epochs of warm-up.
_base_ = 'lars_400e.py'
_base_.param_scheduler[0].share = 10 / 100
_base_.param_scheduler[1].begin = 10 / 100
_base_.train_cfg.max_epochs = 100
