"""Pictures in MLflow: MMEngine gives them no ending, from which MLflow takes the format."""
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.visualization import MLflowVisBackend

_add_image = MLflowVisBackend.add_image


def _add_named_image(self: MLflowVisBackend, name: str, image: np.ndarray, step: int = 0,
                     **kwargs: Any) -> None:
    """Record a picture as `name_step.png`, as MMEngine's local backend does."""
    _add_image(self, name if Path(name).suffix else f'{name}_{step}.png', image, step, **kwargs)


MLflowVisBackend.add_image = _add_named_image
