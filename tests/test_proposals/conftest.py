"""Photos for the proposal tests, packaged with scikit-image and scikit-learn."""
from pathlib import Path

import pytest


def packaged_photo(name: str) -> Path:
    """Return the path of a photo of scikit-image or scikit-learn."""
    import skimage
    import sklearn
    for folder in (Path(skimage.__file__).parent / 'data',
                   Path(sklearn.__file__).parent / 'datasets' / 'images'):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)


@pytest.fixture(scope='session')
def photo():
    """Return a function from the name of a packaged photo to its path."""
    return packaged_photo


@pytest.fixture(scope='session')
def small_photos(tmp_path_factory) -> Path:
    """Make a folder with subfolders and six small photos, cropped from a packaged one."""
    from PIL import Image
    root = tmp_path_factory.mktemp('photos')
    (root / 'b' / 'deep').mkdir(parents=True)
    with Image.open(packaged_photo('coffee.png')) as image:
        for i, name in enumerate(('a.png', 'z.png', 'b/1.png', 'b/2.PNG', 'b/deep/x.png', 'c.png')):
            image.crop((60 * i, 40 * i, 60 * i + 160, 40 * i + 120)).save(root / name)
    (root / 'notes.txt').write_text('no image')
    return root
