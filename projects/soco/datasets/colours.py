"""Random parameters of the colour augmentation; `models.photometric` applies them to pixels."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNCHANGED = np.float32([1, 0, 0])  # weights of `models.photometric.blend`


class PhotometricPolicy:
    """Conversion of uniform draws into the colour augmentation parameters of a view.

    The defaults are those of the first view of the official recipe; its other views differ in
    `blur_prob=0.1` and `solarize_prob=0.2`.

    Args:
        brightness (float): Factors are drawn from `[1 - brightness, 1 + brightness]`. Defaults to 0.4.
        contrast (float): Factors are drawn from `[1 - contrast, 1 + contrast]`. Defaults to 0.4.
        saturation (float): Factors are drawn from `[1 - saturation, 1 + saturation]`. Defaults to 0.2.
        hue (float): Shifts are drawn from `[-hue, hue]` turns; at most 0.5. Defaults to 0.1.
        jitter_prob (float): Probability of the four changes above, applied in a random order.
            Defaults to 0.8.
        grey_prob (float): Probability of a conversion to grey. Defaults to 0.2.
        blur_prob (float): Probability of a Gaussian blur. Defaults to 1.0.
        blur_sigma (tuple[float, float]): Range of the blur's sigma in pixels. Defaults to (0.1, 2.0).
        solarize_prob (float): Probability of solarisation. Defaults to 0.0.

    Raises:
        ValueError: If `hue` is out of range.
    """

    num_uniforms = 13  # uniform draws per view

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.2,
                 hue: float = 0.1, jitter_prob: float = 0.8, grey_prob: float = 0.2,
                 blur_prob: float = 1.0, blur_sigma: tuple[float, float] = (0.1, 2.0),
                 solarize_prob: float = 0.0) -> None:
        if not 0 <= hue <= 0.5:
            raise ValueError(f'hue must be within [0, 0.5] turns, not {hue}.')
        low, high = blur_sigma
        # one row per view; `of_views` stacks the rows of several views
        self.rows = np.array([[brightness, contrast, saturation, hue, jitter_prob, grey_prob, blur_prob,
                               low, high - low, solarize_prob]], dtype=np.float32)

    @classmethod
    def of_views(cls, views: Sequence[Mapping[str, Any]]) -> 'PhotometricPolicy':
        """Build the joint policy of several views, which draws for all of them at once.

        Args:
            views (Sequence[Mapping[str, Any]]): Arguments of each view's policy.

        Returns:
            PhotometricPolicy: A policy with one row of settings per view.

        Raises:
            ValueError: If an argument is unknown or out of range; the message names the view.
        """
        policies = []
        for v, settings in enumerate(views):
            try:
                policies.append(cls(**settings))
            except (TypeError, ValueError) as error:
                raise ValueError(f'views[{v}]: {error}') from error
        joint = cls()
        joint.rows = np.concatenate([policy.rows for policy in policies])
        return joint

    def draw(self, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        """Convert uniform draws into parameters.

        Args:
            uniforms (np.ndarray): (n, 13) float32 in [0, 1); one row per view, or any number of rows
                for the policy of a single view.

        Returns:
            dict[str, np.ndarray]: `amounts` (n, 4: three factors and the hue shift), `order` (n, 4:
            index of the change at each position), `sigma` (n,), and bool masks (n,) `jitter`, `grey`,
            `blur` and `solarize`.
        """
        u = uniforms
        jitter_prob, grey_prob, blur_prob, low, width, solarize_prob = self.rows.T[4:]
        amounts = np.float32([1, 1, 1, 0]) + self.rows[:, :4] * (2 * u[:, 1:5] - 1)
        return dict(
            jitter=u[:, 0] < jitter_prob,
            amounts=np.maximum(amounts, np.float32([0, 0, 0, -0.5])),
            order=u[:, 5:9].argsort(axis=1),
            grey=u[:, 9] < grey_prob,
            blur=u[:, 10] < blur_prob,
            sigma=low + width * u[:, 11],
            solarize=u[:, 12] < solarize_prob)

    def colours(self, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        """Convert uniform draws into the operations of `models.photometric.augment`.

        Brightness, contrast and saturation have three positions before the hue and three after it, so
        that every order of the four changes uses the same operations with other weights.

        Args:
            uniforms (np.ndarray): See `draw`.

        Returns:
            dict[str, np.ndarray]: `weights` (n, 7, 3) float32 of `blend`: positions 0 to 2 are before
            the hue, 3 to 5 after it, and 6 is the conversion to grey; `shifts` (n,) float32, the hue
            shifts in turns; `sigmas` (n,) float32, the blur sigmas in pixels, 0 for no blur;
            `solarize` (n,) bool.
        """
        params = self.draw(uniforms)
        factors, shifts = params['amounts'][:, :3], params['amounts'][:, 3]
        weights = np.tile(UNCHANGED, (len(factors), 7, 1))
        steps = weights[:, :3].copy()
        steps[:, :, 0] = factors
        steps[:, 1, 2] = 1 - factors[:, 1]  # contrast
        steps[:, 2, 1] = 1 - factors[:, 2]  # saturation
        rank = params['order'].argsort(axis=1)  # (n, 4): position of each change
        places = rank[:, :3] + 2 * (rank[:, :3] > rank[:, 3:])  # 1 to 3 become 3 to 5 after the hue
        weights[np.arange(len(steps))[:, None], places] = steps
        weights[~params['jitter']] = UNCHANGED
        weights[params['grey'], 6] = (0, 1, 0)
        return dict(weights=weights, shifts=shifts * params['jitter'],
                    sigmas=np.where(params['blur'], params['sigma'], np.float32(0)),
                    solarize=params['solarize'])
