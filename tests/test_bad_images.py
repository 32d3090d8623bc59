"""Bad images: the generator and training handle each one, or report it with a reason."""
import csv
import functools
import io
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.runner import Runner
from PIL import Image
from scripts import PYTHON
from small import ROOT, tiny_config

from projects.soco.datasets import SoCoDataset
from projects.soco.datasets.decoding import decode_photo
from projects.soco.engine import BadImageHook
from projects.soco.engine import bad_image_hook as bad_images
from projects.soco.proposals import ProposalStore, StoreWriter
from projects.soco.proposals.executors import SerialExecutor
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.images import ImageError, decode_image, image_size
from projects.soco.proposals.journal import read_table, skipped_path
from projects.soco.proposals.sources import open_source

WIDTH, HEIGHT = 160, 120
BOX = (100, 20, 40, 30)  # x, y, w, h of a white rectangle in the upright photo
PIPELINE = [dict(type='LoadProposals'),
            dict(type='ProposalViews', views=[dict(size=32), dict(size=32, area=(0.5, 1.0))]),
            dict(type='PackSoCoInputs')]
HANDLED = None
# EXIF orientation -> transform from the upright photo to the stored pixels
STORED = {1: None, 2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM,
          5: Image.TRANSPOSE, 6: Image.ROTATE_90, 7: Image.TRANSVERSE, 8: Image.ROTATE_270}


def photo() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 128, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC)
    image.paste((255, 255, 255), (BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]))
    return image


def encode(image: Image.Image, form: str, **kwargs) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **kwargs)
    return file.getvalue()


def turned(orientation: int, form: str, **kwargs) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo() if STORED[orientation] is None else photo().transpose(STORED[orientation])
    return encode(image, form, exif=exif, **kwargs)


def deep(image: Image.Image, suffix: str, white: float) -> bytes:
    """Encode an image with OpenCV so that `white` stands for white; 32-bit floats if it is a float."""
    values = np.asarray(image)
    values = values[..., ::-1] if values.ndim == 3 else values
    scaled = (values / 255 * white).astype(np.float32)
    return cv2.imencode(suffix, scaled if isinstance(white, float) else
                        scaled.round().astype(np.uint16))[1].tobytes()


@functools.cache
def kinds() -> dict[str, tuple[bytes, str | None]]:
    """Return file name -> content, and the reason if the file cannot be used."""
    image, other = photo(), photo().transpose(Image.ROTATE_180)
    sixteen = Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257)
    jpeg, png = encode(image, 'JPEG', quality=95), encode(image, 'PNG')
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    return {
        'good.jpg': (jpeg, HANDLED),
        'truncated.jpg': (jpeg[:len(jpeg) * 2 // 3], 'truncated'),
        'truncated_by_a_byte.jpg': (jpeg[:-1], 'truncated'),
        'truncated.png': (png[:len(png) // 2], 'truncated'),
        'truncated.gif': (encode(image, 'GIF')[:900], 'truncated|unreadable'),
        'zero_bytes.jpg': (b'', 'empty file'),
        'text.jpg': (b'<html>404 Not Found</html>', 'not an image'),
        'program.jpg': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n', 'not an image'),
        'more_after_its_end.jpg': (jpeg + bytes(100), HANDLED),
        'png_named.jpg': (png, HANDLED),
        '1x1.jpg': (encode(image.resize((1, 1)), 'JPEG'), HANDLED),
        '1x1.png': (encode(image.resize((1, 1)), 'PNG'), HANDLED),
        '20000x10.jpg': (encode(image.resize((20000, 10)), 'JPEG'), HANDLED),
        '70000x2.png': (encode(Image.new('L', (70000, 2)), 'PNG'), 'too large.*more than 65535'),
        'bomb.png': (encode(Image.new('1', (6000, 6000)), 'PNG'), 'too large: 6000x6000 pixels'),
        'bomb.gif': (encode(Image.new('P', (6000, 6000)), 'GIF'), 'too large: 6000x6000 pixels'),
        '16_bit.png': (encode(sixteen, 'PNG'), HANDLED),
        '16_bit.tif': (encode(sixteen, 'TIFF'), HANDLED),
        '12_of_16_bits.png': (deep(image, '.png', 4095), HANDLED),
        '12_of_16_bits_grey.png': (deep(image.convert('L'), '.png', 4095), HANDLED),
        '10_of_16_bits.tif': (deep(image, '.tif', 1023), HANDLED),
        '14_of_16_bits.ppm': (deep(image, '.ppm', 16383), HANDLED),
        '12_of_16_bits.jp2': (deep(image, '.jp2', 4095), HANDLED),
        '16_bits.tif': (deep(image, '.tif', 65535), HANDLED),
        'float_of_255.tif': (encode(image.convert('F'), 'TIFF'), HANDLED),
        'float_of_1.tif': (deep(image, '.tif', 1.0), HANDLED),
        'float_of_1_grey.tif': (deep(image.convert('L'), '.tif', 1.0), HANDLED),
        'float_of_65535.tif': (deep(image, '.tif', 65535.0), HANDLED),
        'float_of_5.tif': (deep(image, '.tif', 5.0), 'floating-point values from 0 to 5: neither'),
        'float_nan.tif': (deep(image, '.tif', np.nan), 'not finite'),
        'truncated_float.tif': (deep(image, '.tif', 1.0)[:9000], 'truncated|not an image'),
        'truncated_16_bits.tif': (deep(image, '.tif', 4095)[:9000],
                                  'truncated|unreadable|not an image'),
        'truncated_16_bits.png': (deep(image, '.png', 4095)[:9000], 'truncated'),
        'cmyk.jpg': (encode(image.convert('CMYK'), 'JPEG', quality=95), HANDLED),
        'cmyk.tif': (encode(image.convert('CMYK'), 'TIFF'), HANDLED),
        'grey.jpg': (encode(image.convert('L'), 'JPEG', quality=95), HANDLED),
        'grey_alpha.png': (encode(image.convert('LA'), 'PNG'), HANDLED),
        'two_levels.png': (encode(image.convert('1'), 'PNG'), HANDLED),
        'palette_alpha.png': (encode(image.quantize(64), 'PNG', transparency=bytes(range(64))),
                              HANDLED),
        'rgba.png': (encode(Image.merge('RGBA', [*image.split(), image.convert('L')]), 'PNG'), HANDLED),
        'exif_3.jpg': (turned(3, 'JPEG', quality=95), HANDLED),
        'exif_6.jpg': (turned(6, 'JPEG', quality=95), HANDLED),
        'exif_6.png': (turned(6, 'PNG'), HANDLED),
        'exif_6.tif': (turned(6, 'TIFF'), HANDLED),
        'exif_8.webp': (turned(8, 'WEBP', lossless=True), HANDLED),
        'xmp_3.jpg': (encode(image.transpose(Image.ROTATE_180), 'JPEG', quality=95, xmp=xmp), HANDLED),
        'animated.gif': (encode(image, 'GIF', save_all=True, append_images=[other]), HANDLED),
        'animated.webp': (encode(image, 'WEBP', lossless=True, save_all=True, append_images=[other]),
                          HANDLED),
        'animated.png': (encode(image, 'PNG', save_all=True, append_images=[other]), HANDLED),
        'two_pages.tif': (encode(image, 'TIFF', save_all=True, append_images=[other]), HANDLED),
        'heic_named.jpg': (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(99), 'pillow-heif'),
        'raw_named.jpg': (b'\0\0\0\x18ftypcrx \0\0\0\1crx isom' + bytes(99), r'\.cr3.*raw files'),
        'layers_named.png': (b'8BPS\0\1' + bytes(99), r'\.psd.*export the picture'),
        'apple_double.jpg': (b'\0\5\x16\7\0\2\0\0' + bytes(99), r'not an image.*\._'),
        'plain.JPE': (jpeg, HANDLED),
        'plain.jfif': (jpeg, HANDLED),
        'plain.jp2': (encode(image, 'JPEG2000'), HANDLED),
        'plain.avif': (encode(image, 'AVIF', quality=95), HANDLED),
        'plain.qoi': (encode(image, 'QOI'), HANDLED),
        'plain.tga': (encode(image, 'TGA'), HANDLED),
        'plain.sgi': (encode(image, 'SGI'), HANDLED),
        'plain.pcx': (encode(image, 'PCX'), HANDLED),
        'plain.dib': (encode(image, 'DIB'), HANDLED),
        'exif_6.avif': (turned(6, 'AVIF', quality=95), HANDLED),
        'plain.bmp': (encode(image, 'BMP'), HANDLED),
        'plain.ppm': (encode(image, 'PPM'), HANDLED),
        'spaces in its name .jpg': (jpeg, HANDLED),
        'ünï→.jpg': (jpeg, HANDLED),
    }


SHOWS_THE_BOX = {name for name, (content, reason) in kinds().items()
                 if reason is HANDLED and not re.match('1x1|20000|two_levels', name)}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> tuple[Path, Path]:
    """Return a folder with all kinds of files, and the store that the generator makes from it."""
    folder = tmp_path_factory.mktemp('kinds')
    images, out = folder / 'images', folder / 's.arrow'
    (images / 'directory.jpg').mkdir(parents=True)
    (images / 'directory.jpg/inside.jpg').write_bytes(kinds()['good.jpg'][0])
    (images / 'round').symlink_to(images)
    (images / 'loop.jpg').symlink_to(images / 'loop.jpg')
    (images / 'loop_1.jpg').symlink_to(images / 'loop_2.jpg')
    (images / 'loop_2.jpg').symlink_to(images / 'loop_1.jpg')
    (images / 'nowhere.jpg').symlink_to(images / 'gone.jpg')
    for name, (content, _) in kinds().items():
        (images / name).write_bytes(content)
    for name in (b'new\nline.jpg', b'no\xfftext.jpg'):
        Path(os.fsdecode(os.fsencode(images / '') + b'/' + name)).write_bytes(kinds()['good.jpg'][0])
    generate(open_source(images), out, GenerateOptions(), SerialExecutor())
    return images, out


NAMED_FILES = {'loop.jpg': 'Too many levels of symbolic links', 'loop_1.jpg': 'Too many levels',
               'loop_2.jpg': 'Too many levels', 'nowhere.jpg': 'No such file',
               r'new\nline.jpg': 'cannot be written as text',
               r'no\udcfftext.jpg': 'cannot be written as text'}


def test_the_generator_handles_or_names_each(made):
    images, out = made
    listed = {row.image for row in ProposalStore.open(out)}
    skipped = dict(read_table(skipped_path(out)))
    named = {name: reason for name, (_, reason) in kinds().items() if reason} | NAMED_FILES
    assert listed == {name for name, (_, reason) in kinds().items() if not reason} | {
        'directory.jpg/inside.jpg'}
    assert skipped.keys() == named.keys()
    for name, reason in named.items():
        assert re.search(reason, skipped[name]), (name, skipped[name])
    print(f'generator: {len(listed) + len(named)} bad images, {len(listed)} handled, '
          f'{len(named)} reported')


def test_training_handles_what_the_generator_took(made):
    images, out = made
    photos = SoCoDataset(str(images), str(out), PIPELINE)
    for row in range(len(photos)):
        sample = photos[row]
        assert sample['bad'] == '' and sample['bboxes'].isfinite().all(), photos.store.name(row)
    print(f'training: {len(photos)} handled')


def test_training_names_the_others(made, tmp_path):
    """The store lists the bad files, as if they had been damaged after its generation."""
    images, _ = made
    named = {name: reason for name, (_, reason) in kinds().items() if reason}
    named |= {name: reason for name, reason in NAMED_FILES.items() if '\\' not in name}
    named |= {'directory.jpg': 'a folder', 'not_there.jpg': 'No such file',
              '../s.arrow': r'contains "\.\."', '/etc/hostname': 'absolute path',
              'good.jpg': 'measures 160x120.*made for 999x9'}
    with StoreWriter(tmp_path / 's.arrow', dict(rules=['a'])) as writer:
        for name in sorted(named):
            writer.add(name, 999, 9, [], 'a')
    photos = SoCoDataset.__new__(SoCoDataset)  # skip the check of some names, which would fail
    photos.__dict__.update(store=ProposalStore.open(tmp_path / 's.arrow'), source=open_source(images),
                           max_bad_share=0)
    photos.pipeline = lambda results: decode_photo(
        results['bytes'], (results['row'].width, results['row'].height), results['max_pixels'])
    for row, name in enumerate(sorted(named)):
        with pytest.raises(ValueError, match=re.escape(name)) as error:
            photos[row]
        assert re.search(named[name], str(error.value)), error.value
    print(f'training: {len(named)} reported')


@pytest.mark.parametrize('name', sorted(SHOWS_THE_BOX))
def test_both_see_the_same_pixels_and_the_box_in_its_place(name):
    content, _ = kinds()[name]
    seen = decode_image(content)
    trained, reduction = decode_photo(content, image_size(io.BytesIO(content)))
    assert reduction == 1 and seen.shape == trained.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(seen.astype(int) - trained[..., ::-1]).max() <= 2
    x, y, w, h = BOX
    for pixels in (seen, trained):
        light = pixels.min(axis=2) > 200
        inside = light[y:y + h, x:x + w]
        assert inside.mean() > 0.95 and light.sum() - inside.sum() < 0.05 * w * h


@pytest.mark.parametrize('form', ['AVIF', 'JPEG', 'PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', STORED)
def test_boxes_belong_to_the_upright_photo(form, orientation):
    content = turned(orientation, form)
    assert image_size(io.BytesIO(content)) == (WIDTH, HEIGHT)
    x, y, w, h = BOX
    for pixels in (decode_image(content), decode_photo(content, (WIDTH, HEIGHT))[0]):
        assert pixels[y + 2:y + h - 2, x + 2:x + w - 2].min() > 200
        assert pixels[:, :x - 8].max() < 200


@pytest.mark.parametrize('tail', [b'', b'\xff\xd9'])
def test_exif_that_is_broken_turns_nothing(tail):
    content = turned(6, 'JPEG').replace(b'\x12\x01\x03\x00', b'\x12\x01\x07\x77') + tail
    seen = decode_image(content)
    trained, _ = decode_photo(content, image_size(io.BytesIO(content)))
    assert np.abs(seen.astype(int) - trained[..., ::-1]).max() <= 2


class TestHook:

    def start(self, folder: Path, broken: int, without: str = '', **changes) -> Runner:
        """Build a run on 12 photos, the first `broken` of them bad; its log messages are recorded."""
        cfg = tiny_config(folder, **{
            'train_cfg.max_epochs': 1, 'experiment_name': folder.name,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False, **changes})
        for i in range(broken):
            (folder / f'photos/photo_{i:03}.png').write_bytes(b'text')
        cfg.default_hooks.pop(without, None)
        runner = Runner.from_cfg(cfg)
        self.told, self.said = [], []
        runner.logger.warning = lambda text, *args: self.told.append(str(text))
        runner.logger.info = lambda text, *args: self.said.append(str(text))
        return runner

    def table(self, folder: Path) -> list[list[str]]:
        with open(folder / 'work/bad_images.csv', newline='') as file:
            return list(csv.reader(file))

    def test_each_is_told_listed_and_counted(self, tmp_path):
        self.start(tmp_path, broken=3, **{'train_dataloader.dataset.max_bad_share': 0.3}).train()
        head, *rows = self.table(tmp_path)
        assert head == ['image', 'reason', 'replaced_by']
        assert [row[:2] for row in rows] == [[f'photo_{i:03}.png', 'not an image'] for i in range(3)]
        assert all(int(row[2][6:9]) >= 3 for row in rows)
        told = [text for text in self.told if 'is used instead' in text]
        assert sorted(told) == [f'{row[0]} cannot be used: not an image. {row[2]} is used instead.'
                                for row in rows]
        assert any(re.match('Photos that could not be used: 3 of 12, listed in .*bad_images.csv', text)
                   for text in self.said)

    def test_too_many_stop_the_run(self, tmp_path):
        """The share of 0.001 in the configs allows no bad photo in a small data set."""
        runner = self.start(tmp_path, broken=1)
        with pytest.raises(ValueError, match='1 of 12 photos cannot be used.*photo_000.png: not an '
                                             'image.*bad_images.csv.*Restore.*--resume'):
            runner.train()
        assert len(self.table(tmp_path)) == 2 and runner.iter < 6

    def test_no_run_without_the_hook_has_stand_ins(self, tmp_path):
        runner = self.start(tmp_path, broken=0, without='bad_images')
        with pytest.raises(ValueError, match='max_bad_share.*add bad_images=dict.type="BadImageHook"'):
            runner.train()

    def test_a_good_run_says_so_and_writes_no_table(self, tmp_path):
        hook, said = BadImageHook(), []
        runner = SimpleNamespace(
            work_dir=str(tmp_path), _resume=False, iter=0, logger=SimpleNamespace(info=said.append),
            train_dataloader=SimpleNamespace(dataset=SimpleNamespace(store=range(12))))
        hook.before_train(runner)
        hook.after_train_iter(runner, 0, dict(bad=['', '']))
        hook.after_train_epoch(runner)
        hook.after_train(runner)
        assert said == ['Photos that could not be used: 0 of 12.'] and not list(tmp_path.iterdir())

    def test_a_resumed_run_goes_on_with_the_table_and_counts_anew(self, tmp_path):
        work = tmp_path / 'work'
        work.mkdir()
        old = 'image,reason,replaced_by\nold.jpg,empty file,other.jpg\n'
        (work / 'bad_images.csv').write_text(old)
        hook, photos = BadImageHook(), SimpleNamespace(store=range(1000), max_bad_share=0.001)
        told = []
        runner = SimpleNamespace(work_dir=str(work), _resume=True, iter=0, logger=SimpleNamespace(
            warning=told.append), train_dataloader=SimpleNamespace(dataset=photos))
        hook.before_train(runner)
        hook.after_train_iter(runner, 0, dict(bad=['', '[["new.jpg", "not an image", "some.jpg"]]']))
        assert (work / 'bad_images.csv').read_text().splitlines()[1:] == [
            'new.jpg,not an image,some.jpg', 'old.jpg,empty file,other.jpg']
        hook.after_train_iter(runner, 1, dict(bad=['[["new.jpg", "not an image", "another.jpg"]]']))
        assert len(told) == 1
        with pytest.raises(ValueError, match='2 of 1000 photos cannot be used'):
            hook.after_train_iter(runner, 2, dict(bad=['[["more.jpg", "empty file", "some.jpg"]]']))

    def test_all_ranks_know_all_of_them(self, tmp_path, monkeypatch):
        """Each rank finds one photo of its own and a common one; both stop, and one rank writes."""
        found = [['[["a.jpg", "empty file", "x.jpg"]]', '[["b.jpg", "not an image", "y.jpg"]]'],
                 ['[["b.jpg", "not an image", "z.jpg"]]', '[["c.jpg", "truncated", "x.jpg"]]']]
        hooks, sent = [BadImageHook(interval=2) for _ in range(2)], {}
        monkeypatch.setattr(bad_images, 'get_world_size', lambda: 2)
        monkeypatch.setattr(bad_images, 'all_gather_object', lambda photos, group: list(sent.values()))
        photos = SimpleNamespace(store=range(100), max_bad_share=0.02)
        told: list[str] = []
        runners = [SimpleNamespace(
            work_dir=str(tmp_path), _resume=False, iter=i, logger=SimpleNamespace(warning=told.append),
            train_dataloader=SimpleNamespace(dataset=photos)) for i in range(2)]
        for rank, hook in enumerate(hooks):
            hook.before_train(runners[0])
            hook.after_train_iter(runners[0], 0, dict(bad=found[rank]))
            sent[rank] = dict(hook._untold)
        assert not told and not (tmp_path / 'bad_images.csv').exists()
        for rank, hook in enumerate(hooks):
            monkeypatch.setattr(bad_images, 'is_main_process', lambda rank=rank: rank == 0)
            with pytest.raises(ValueError, match='3 of 100 photos cannot be used'):
                hook.after_train_iter(runners[1], 1, dict(bad=['', '']))
        assert len(told) == 3
        assert (tmp_path / 'bad_images.csv').read_text().splitlines()[1:] == [
            'a.jpg,empty file,x.jpg', 'b.jpg,not an image,y.jpg', 'c.jpg,truncated,x.jpg']

    @pytest.mark.slow
    def test_two_processes(self, tmp_path):
        cfg = tiny_config(tmp_path, **{'train_cfg.max_epochs': 1, 'log_level': 'INFO',
                                       'train_dataloader.dataset.max_bad_share': 0.3})
        for i in range(3):
            (tmp_path / f'photos/photo_{i:03}.png').write_bytes(b'text')
        cfg.dump(tmp_path / 'config.py')
        command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
                   str(ROOT / 'tools/train.py'), str(tmp_path / 'config.py'), '--launcher', 'pytorch']
        done = subprocess.run([PYTHON, *command], capture_output=True, text=True, timeout=600,
                              env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        text = ' '.join((done.stdout + done.stderr).split())
        assert 'Photos that could not be used: 3 of 12, listed in' in text
        assert [row[0] for row in self.table(tmp_path)[1:]] == [f'photo_{i:03}.png' for i in range(3)]
        for i in range(3):
            assert len(re.findall(f'photo_{i:03}.png cannot be used: not an image', text)) == 1

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match='interval must be at least 1'):
            BadImageHook(interval=0)


def test_the_limit_of_pixels_in_training_is_the_generators(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'a.png').write_bytes(encode(photo(), 'PNG'))
    for limit in (None, WIDTH * HEIGHT, WIDTH * HEIGHT - 1):
        metadata = dict(rules=['a']) if limit is None else dict(rules=['a'], max_pixels=limit)
        with StoreWriter(tmp_path / 's.arrow', metadata) as writer:
            writer.add('a.png', WIDTH, HEIGHT, [BOX], 'a')
        photos = SoCoDataset(str(images), str(tmp_path / 's.arrow'), PIPELINE)
        if limit == WIDTH * HEIGHT - 1:
            with pytest.raises(ValueError, match='a.png .*too large: 160x120 pixels, more than 19199'):
                photos[0]
        else:
            assert photos[0]['bad'] == ''


def test_a_reason_is_a_few_words():
    with pytest.raises(ImageError) as error:
        decode_image(b'II*\0' + bytes(50))
    assert '\n' not in str(error.value) and len(str(error.value)) < 200
