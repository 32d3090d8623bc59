"""Tables that compare the scores of several models."""
import math

from rich.table import Table

from ..annotations.summary import SIZES
from .annotated import LabelledPhotos
from .class_score import Figures, LabelledScore
from .objects import ObjectScore
from .rank import FeatureRank

VIEW_ROWS = {  # rows of the table without labels: title, and the field with the chance of one guess
    'top1': ('top-1: the nearest is itself', 'chance'),
    'top5': ('top-5: one of the five nearest', 'chance'),
    'top1_same_photo': ('top-1, own photo only', 'chance_same_photo'),
    'alignment': ('alignment, lower is better', None),
    'top1_scales': ('top-1, view of another size', 'chance_scales'),
    'top5_scales': ('top-5, view of another size', 'chance_scales'),
    'top1_same_photo_scales': ('top-1, own photo, another size', 'chance_same_photo_scales'),
    'alignment_scales': ('alignment, another size', None),
    'uniformity': ('uniformity, lower is better', None),
    'spread': ('spread of object features, 0 is collapse', None),
}


def view_table(scores: dict[str, ObjectScore], features: str) -> Table:
    """Show scores without labels, one column per model.

    Args:
        scores (dict[str, ObjectScore]): Name of a model to its score.
        features (str): The features that were compared, see `objects.embed_objects`.

    Returns:
        Table: The scores. Values that no view pair defines have no row.
    """
    some = next(iter(scores.values()))
    table = Table(title=f'Objects matched in another view ({features} features)',
                  caption=f'{some.num_objects} queries in {some.num_photos} photos')
    for column in ('', 'chance', *scores):
        table.add_column(column, justify='right' if column else 'left', overflow='fold')
    for key, (title, chance) in VIEW_ROWS.items():
        values = [getattr(score, key) for score in scores.values()]
        if any(value is not None for value in values):
            unit = '.1%' if key.startswith('top') else '.3f'
            places = 5 if key.startswith('top5') else 1
            guess = format(min(1, places * getattr(some, chance)), unit) if chance else ''
            table.add_row(title, guess, *('–' if v is None else format(v, unit) for v in values))
    return table


def rank_table(ranks: dict[str, dict[str, FeatureRank]], kind: str = '') -> Table:
    """Show the rank of object features and projections, one column per model.

    Args:
        ranks (dict[str, dict[str, FeatureRank]]): Name of a model to `rank.rank_of_model`'s result.
        kind (str): '' for the target network, 'online ' for the online network. Defaults to ''.

    Returns:
        Table: The measures.
    """
    some = next(iter(ranks.values()))
    table = Table(title=f'Directions in which features differ ({kind or "target "}network)',
                  caption=f'{some[f"{kind}object"].num_objects} objects')
    for column in ('', *ranks):
        table.add_column(column, justify='right' if column else 'left', overflow='fold')
    for name, title in (('object', 'object features'), ('projection', 'projections')):
        if f'{kind}{name}' not in some:
            continue
        found = [rank[f'{kind}{name}'] for rank in ranks.values()]
        table.add_row(f'effective rank of {title}, of {found[0].dimensions}',
                      *(f'{rank.effective_rank:.1f}' for rank in found))
        table.add_row(f'RankMe of {title}', *(f'{rank.rankme:.1f}' for rank in found))
        table.add_row('variance in the first five directions',
                      *(f'{rank.leading_share:.1%}' for rank in found))
        table.add_row('variance explained by place and size of the box',
                      *('–' if rank.by_box is None else f'{rank.by_box:.1%}' for rank in found))
        table.add_row('units that never fire', *(str(rank.silent) for rank in found), end_section=True)
    return table


def class_tables(scores: dict[str, LabelledScore], labelled: LabelledPhotos, view_size: int,
                 k: int) -> list[Table]:
    """Show scores with labels: overall and by size, with intervals, and by class.

    Args:
        scores (dict[str, LabelledScore]): Name of a model to its score.
        labelled (LabelledPhotos): The photos and objects that were scored.
        view_size (int): Side that the photos were resized to, in pixels.
        k (int): Number of neighbours that voted.

    Returns:
        list[Table]: The scores with one column per model, and the scores by class with two.
    """
    some = next(iter(scores.values()))
    table = Table(
        title=f'Classes predicted from the nearest objects (photos at {view_size} pixels)',
        caption=f'{len(labelled.classes)} objects of {len(labelled.class_names)} classes in '
        f'{len(labelled.names)} photos; 95 % intervals in brackets. Always predicting the most '
        f'frequent class gives {k}-NN {some.commonest:.1%}.')
    for column in ('', 'objects', *scores):
        table.add_column(column, justify='right' if column else 'left', overflow='fold')
    parts = {f'in other photos{ending}': ([score.other_photos for score in scores.values()], keys)
             for ending, keys in (('', ('knn', 'map')),
                                  (', mean of classes', ('knn_classes', 'map_classes')))}
    parts['own photo too'] = [score.all_photos for score in scores.values()], ('knn', 'map')
    for size, (low, high) in SIZES.items():
        side = f'up to {high**0.5:.0f}²' if high < math.inf else f'from {low**0.5:.0f}²'
        figures = [score.sizes[size] for score in scores.values()]
        parts[f'{size}, {side} pixels'] = figures, ('knn', 'map')
    for title, (figures, keys) in parts.items():
        for key, kind in zip(keys, (f'{k}-NN', 'mAP')):
            table.add_row(f'{kind}, {title}', _count_of(figures[0], key),
                          *(_with_interval(f, key) for f in figures), end_section=kind == 'mAP')
    by_class = Table(title='By class, in other photos',
                     caption='–: all objects of the class are in one photo.')
    by_class.add_column('')
    by_class.add_column('objects', justify='right')
    for name in scores:
        by_class.add_column(f'{k}-NN\n{name}', justify='right', overflow='fold')
        by_class.add_column(f'mAP\n{name}', justify='right', overflow='fold')
    for title in labelled.class_names:
        figures = [score.classes[title] for score in scores.values()]
        by_class.add_row(title, _count_of(figures[0], 'knn'),
                         *(_value_of(f, key) for f in figures for key in ('knn', 'map')))
    return [table, by_class]


def _count_of(figures: Figures, key: str) -> str:
    return str(figures[key].objects if figures[key] else 0)


def _value_of(figures: Figures, key: str) -> str:
    return f'{figures[key].value:.1%}' if figures[key] else '–'


def _with_interval(figures: Figures, key: str) -> str:
    figure = figures[key]
    return f'{figure.value:.1%} ({100 * figure.low:.1f}–{100 * figure.high:.1f})' if figure else '–'
