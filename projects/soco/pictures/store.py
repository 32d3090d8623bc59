"""Pictures of a proposal store: photos with their boxes, and histograms of sizes and ratios."""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..proposals.images import ImageError, decode_image
from ..proposals.sources import ImageSource
from ..proposals.store import ProposalStore
from ..proposals.store_statistics import Statistics
from .canvas import save_image
from .photos import draw_proposals


def draw_statistics(figures: Statistics, path: str | Path) -> None:
    """Draw histograms of the boxes per image, their sizes and their ratios.

    Args:
        figures (Statistics): The statistics.
        path (str | Path): The PNG file to write.
    """
    figure = Figure(figsize=(12, 3.5), layout='tight')
    ratios = np.log2(np.clip(figures.ratios, 2**-4, 2**4))
    for position, (values, label) in enumerate((
            (figures.counts, 'boxes per image'), (figures.shares, 'sqrt(box area / image area)'),
            (ratios, 'log2(width / height)'))):
        axes = figure.add_subplot(1, 3, position + 1)
        axes.hist(values, bins=40, color='tab:blue')
        axes.set_xlabel(label)
    figure.savefig(path, dpi=100)


def draw_store(store: ProposalStore, figures: Statistics, source: ImageSource | None,
               folder: str | Path, photos: int) -> list[Path]:
    """Draw the statistics of a store and, if the images are available, some of its photos.

    Args:
        store (ProposalStore): The store.
        figures (Statistics): Its statistics.
        source (ImageSource, optional): The images.
        folder (str | Path): Folder for the pictures; it is created if needed.
        photos (int): Number of photos, evenly spread over the store.

    Returns:
        list[Path]: Paths of the pictures.

    Raises:
        FileNotFoundError: If an image is not in the source.
        ValueError: If an image cannot be read or has another size than the store says.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / 'statistics.png']
    draw_statistics(figures, made[0])
    rows = np.unique(np.linspace(0, len(store) - 1, photos).astype(int)) if source else []
    for number, row in enumerate(rows):
        proposals = store[int(row)]
        try:
            image = decode_image(source.read_bytes(proposals.image))
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{proposals.image}, which {store.path} lists, is not in '
                                    f'{source.path}: use the images that it was made '
                                    f'from.') from error
        except ImageError as error:
            raise ValueError(f'{proposals.image} in {source.path}: {error}.') from error
        if image.shape[:2] != (proposals.height, proposals.width):
            raise ValueError(f'{proposals.image} measures {image.shape[1]} × {image.shape[0]} '
                             f'pixels in {source.path}, but {proposals.width} × '
                             f'{proposals.height} in {store.path}: use the images that it was '
                             f'made from.')
        title = f'{proposals.image}: {len(proposals.boxes)} proposals'
        made.append(save_image(draw_proposals(image, proposals.boxes, title),
                               folder / f'photo_{number}.png'))
    return made
