"""Compare our proposals with the official ones and print how many agree.

    python tests/parity_proposals.py [DATA]

DATA is the folder that contains `photos/` and `originals/` of the parity files. Without it, only the
photos that ship with scikit-image and scikit-learn are compared.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / 'tests/test_proposals'):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
from conftest import packaged_photo  # noqa: E402
from test_selective_search import matched_share, read_rgb  # noqa: E402

from projects.soco.proposals.filters import get_filter  # noqa: E402
from projects.soco.proposals.selective_search import selective_search  # noqa: E402


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    box_filter = get_filter('ratio3size0308post')
    kept_all, found_all = 0, 0.0
    for name in ('packaged', 'photos', 'originals'):
        if name != 'packaged' and data is None:
            continue
        official = json.loads((ROOT / f'tests/data/parity/selective_search_{name}.json').read_text())
        same, kept, found, png, png_same = 0, 0, 0.0, 0, 0
        for photo, values in official.items():
            image = read_rgb(packaged_photo(photo) if name == 'packaged' else data / name / photo)
            regions = selective_search(image)
            identical = regions.tolist() == values['regions_xywh']
            same += identical
            png += photo.endswith('.png')
            png_same += photo.endswith('.png') and identical
            theirs = np.array(values['kept_xywh']).reshape(-1, 4)
            ours = box_filter(regions, image.shape[1], image.shape[0])[0]
            if len(theirs):
                kept += len(theirs)
                found += matched_share(ours, theirs) * len(theirs)
        kept_all, found_all = kept_all + kept, found_all + found
        of_png = f' ({png_same} of {png} PNG)' if png else ''
        print(f'{name:10} identical lists of regions: {same} of {len(official)}{of_png}; official '
              f'kept boxes matched one-to-one at IoU 0.95: {found:.0f} of {kept}')
    print(f'{"all":10} official kept boxes matched: {found_all / kept_all:.2%}')


if __name__ == '__main__':
    main()
