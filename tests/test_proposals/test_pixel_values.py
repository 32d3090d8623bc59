"""Tests of the rule that scales values of more than 8 bits, through both decoders."""
import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from projects.soco.datasets.decoding import decode_photo
from projects.soco.proposals.images import ImageError, decode_image, image_size
from projects.soco.proposals.pixel_values import DEPTHS, ValueRangeError, range_remark, to_8_bits

PICTURE = np.zeros((60, 93, 3), np.uint8)  # distinct in all eight orientations
PICTURE[9:27, 54:87] = (250, 120, 30)
PICTURE[36:, :15] = 255
LOSSLESS = {'.jp2': (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)}


def tiff(values: np.ndarray, order: str = '<', orientation: int = 1, photometric: int | None = None,
         planar: bool = False, **more: int) -> bytes:
    """Write an uncompressed TIFF file of one strip per plane; `more` are SHORT tags by number."""
    bands = 1 if values.ndim == 2 else values.shape[2]
    planes = [values] if not planar else [values[..., band] for band in range(bands)]
    data = [np.ascontiguousarray(plane, values.dtype.newbyteorder(order)).tobytes()
            for plane in planes]
    tags = {256: [values.shape[1]], 257: [values.shape[0]], 258: [8 * values.itemsize] * bands,
            259: [1], 262: [(1 if bands == 1 else 2) if photometric is None else photometric],
            273: None, 274: [orientation], 277: [bands], 278: [values.shape[0]],
            279: [len(part) for part in data], 284: [1 + planar],
            339: [dict(u=1, i=2, f=3)[values.dtype.kind]] * bands}
    tags |= {int(key.removeprefix('tag')): [value] for key, value in more.items()}
    if bands == 4:
        tags[338] = [2]
    body = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b'', b''
    begins = lambda: body + sum(4 * len(v) for v in tags.values() if v and len(v) > 1) + 4 * len(data)  # noqa: E731
    at = begins()
    tags[273] = [at + sum(map(len, data[:index])) for index in range(len(data))]
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f'{order}{len(numbers)}I', *numbers)
        if len(numbers) > 1:
            entries += struct.pack(f'{order}HHII', tag, 4, len(numbers), body + len(extra))
            extra += packed
        else:
            entries += struct.pack(f'{order}HHI', tag, 4, 1) + packed
    head = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}IH', 8, len(tags))
    return (head + entries + bytes(4) + extra).ljust(at, b'\0') + b''.join(data)


def of_bits(bits: int) -> np.ndarray:
    return (PICTURE.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


def both(content: bytes) -> np.ndarray:
    """Decode as the generator and as training do, and check that they agree."""
    seen = decode_image(content)
    trained, reduction = decode_photo(content, image_size(io.BytesIO(content)))
    assert reduction == 1 and np.array_equal(seen, trained[..., ::-1])
    return seen


def close(pixels: np.ndarray, wanted: np.ndarray = PICTURE) -> bool:
    return pixels.shape == wanted.shape and np.abs(pixels.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize('bits', DEPTHS)
@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jp2', '.ppm'])
def test_16_bit_colours_show_whatever_depth_they_use(bits, suffix):
    assert close(both(cv2.imencode(suffix, of_bits(bits)[..., ::-1], LOSSLESS.get(suffix, ()))
                      [1].tobytes()))


@pytest.mark.parametrize('bits', DEPTHS)
@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jp2', '.pgm'])
def test_so_does_16_bit_grey(bits, suffix):
    grey = np.ascontiguousarray(of_bits(bits)[..., 0])
    content = cv2.imencode(suffix, grey, LOSSLESS.get(suffix, ()))[1].tobytes()
    assert close(both(content), np.repeat(PICTURE[..., :1], 3, axis=2))


JPEG_2000_OF_12_BITS = (
    'c-muNVBpCLP*C9IYUg5LU=T?wsVvAUFj4@r8KAT-kj?<oVwo8!ML^mCjG4LFL24NIlk;<m7{N>d1_tI}pyK5J{{I6R'
    '^ub~dPz(d8d}eM&MhN;J#J~d-U}R)wVPRnWAH%@wkdTp4073s#7*rV;or_WvOHxx5k}4Ja3sUpE0$kk{%2JDpGxPHl'
    'jPy+PO#V+`0QrG|=@QU{$@d>duo<Sk^V>ElVaLNl?;Q<i4hEm;`LF8{u_x1nEtgex+J?HY@0(R#q-Ce>`SZi&eviPH'
    '?On~v`7d_{UjJxUah+@8-@xb6t-e9_Ui#h|abXK2lglzcF57(kjfqfw%d39rkIR&%&v@B;``y()vtNifpQ~Zj+<*T;'
    'g{XedTj9p7U*;~m@cKCKb=^yIIu>i);}W`3QfIsP@ZoR#^B*i?e<q^%zvQu=psc&df-|lR*7Xcmjy+s>IP%k+77d59'
    '-FFz*7`9D1^XG=IILGcS{^56~2E3Zz!*JuDjDovS(cbNMrai7b__OWc&yE9ij0%duFL+opSH9m`U?y+RueL1Qlf~gu'
    '(xb;r@mGRh<tuzPdDL+>C~^7mPm1y<mdJ0209md3vUuXWLx*lJIlACGPubj6pE>4j`q+N?*ycOdNh`RI?FZWvAmY{0'
    'a_jInf%y;qu|E?seb|&7^)G0eP#jy{+b`?n)3a86;M$@zvt^0)ktIEBJx)`O8CGry-DS7m<ND3%-p`J3)Eszhwl<bk'
    '`e9?{<T#d8YcJQQOg0R5haajhfAYsdJ!xs*Y~>{XgFo93{_Jr8`oye-O>xJcIg47#1>^2K+s}DI?1<C0>m|*-JZlv<'
    'FqSZ0u;7yS*~xBRJ$0(GpTev7<DZn}Pdt&|5MX+PMPYZH&(b%sS7z=v^6I+CF2M)VTAX~AJImz*x0Q3BL4E1@o05BW'
    'ee<<YpFY)4c=NH({D;5s^*`xjf5sKnIxS>ZbFHW0R*82#^N$$3>T9pKzIXitO$Y9euI3%>%%^7TTlkOtxnqrIk@=m~'
    'MmuLa|4i-%M?vR-I)(+2H>ZSj&0W-TQDLiSd{6V!cS*O?BX=xnym@KnufPA*C(O=g)a^h1Nml;E8u<+xFx%|*9}REc'
    '-xKjPFH_3w^_;s5a~9~oSDUx<qsxAv`DqOQZvp`O%#%|')


def test_jpeg_2000_of_12_bits():
    """Pillow turns its white into black."""
    seen = both(zlib.decompress(base64.b85decode(JPEG_2000_OF_12_BITS)))
    assert seen.shape == (64, 64, 3) and (seen[32:] == 255).all()
    assert (seen[:9, :30] == (255, 62, 19)).all() and not seen[9:32].any()


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('values', [
    of_bits(12), of_bits(16), of_bits(12).astype(np.uint32), of_bits(12).astype(np.int16),
    (PICTURE / 255).astype(np.float32), PICTURE / 255, PICTURE.astype(np.float32),
    of_bits(14).astype(np.float32), np.dstack([of_bits(12), of_bits(12)[..., :1]]),
    (PICTURE / 255 * 1.02 - 0.01).astype(np.float32)],
    ids=['12', '16', '12of32', 'signed', 'f32', 'f64', 'f255', 'f14', 'rgba', 'overshoot'])
def test_values_of_a_tiff(order, values):
    wanted = PICTURE if values.dtype.kind != 'f' or values.min() >= 0 else np.clip(
        (PICTURE / 255 * 1.02 - 0.01) * 255, 0, 255)
    assert np.abs(both(tiff(values, order)) - wanted.astype(int)).max() <= 1
    if values.ndim == 3 and values.shape[2] == 3:  # grey by itself
        grey = tiff(np.ascontiguousarray(values[..., 0]), order)
        assert np.abs(both(grey) - wanted[..., :1].astype(int)).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('values', [of_bits(12), of_bits(16), (PICTURE / 255).astype(np.float32),
                                    of_bits(12)[..., 0], (PICTURE[..., 0] / 255).astype(np.float32)],
                         ids=['12', '16', 'f32', 'grey12', 'greyf32'])
def test_deep_images_are_turned_upright(orientation, values):
    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = Image.fromarray(PICTURE if values.ndim == 3 else np.repeat(PICTURE[..., :1], 3, axis=2))
    eight.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(eight))
    assert close(both(tiff(values, orientation=orientation)), wanted)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_so_is_a_deep_png(orientation):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(file, 'PNG', exif=exif)
    wanted = decode_image(file.getvalue())
    deep = cv2.imencode('.png', of_bits(12)[..., ::-1])[1].tobytes()
    start = file.getvalue().index(b'eXIf') - 4
    length = struct.unpack('>I', file.getvalue()[start:start + 4])[0] + 12
    assert close(both(deep[:33] + file.getvalue()[start:start + length] + deep[33:]), wanted)


def test_a_declared_depth_counts_for_a_dark_image():
    dark = of_bits(12) // 8  # at most 511, which 10 bits hold
    data = dark.astype('>u2').tobytes()
    assert close(both(b'P6 93 60 4095\n' + data), PICTURE // 8)
    grey = dark[..., 0].astype('>u2').tobytes()
    assert close(both(b'P5 # a note\n93 60\n4095\n' + grey),
                 np.repeat(PICTURE[..., :1] // 8, 3, axis=2))


def test_white_is_zero_is_inverted():
    for values in (of_bits(16)[..., 0], PICTURE[..., 0]):
        white = 2**(8 * values.itemsize) - 1
        assert close(both(tiff(white - values, photometric=0)), np.repeat(PICTURE[..., :1], 3, axis=2))


@pytest.mark.parametrize('content, reason', [
    (tiff(of_bits(16), planar=True), 'stored in separate planes: convert it'),
    (tiff((PICTURE / 255).astype(np.float32), planar=True), 'image that is read.*separate planes'),
    (tiff((PICTURE / 255).astype(np.float16)), 'not an image that is read.*floating-point.*16 bits'),
    (tiff(np.dstack([of_bits(16)] * 2)[..., :5]), 'not an image that is read: TIFF with 5'),
    (tiff(PICTURE[..., 0].astype(np.int8)), 'signed values'),
    (tiff(of_bits(12).astype(np.int16) - 9), 'values from -9 to .*outside 16 bits'),
    (tiff(PICTURE, tag254=1), 'a thumbnail comes first'),
    (tiff((PICTURE / 50).astype(np.float32)), r'floating-point values from 0 to 5\.1: neither'),
    (tiff(PICTURE.astype(np.float32) * 300), 'neither 0 to 1 nor 0 to 255'),
    (tiff(PICTURE.astype(np.float32) - 40), 'negative values'),
])
def test_what_the_rule_does_not_cover_is_refused(content, reason):
    with pytest.raises(ImageError, match=reason):
        decode_image(content)
    with pytest.raises(ImageError, match=reason):
        decode_photo(content, (93, 60))


def test_sizes_of_what_pillow_does_not_open_are_limited():
    content = tiff((PICTURE / 255).astype(np.float32), orientation=6)
    assert image_size(io.BytesIO(content)) == (60, 93)
    for check in (decode_image, lambda data, most: image_size(io.BytesIO(data), most)):
        with pytest.raises(ImageError, match='too large: 60x93'):
            check(content, 5579)


def test_deep_values_match_the_closed_form():
    values = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_8_bits(values), np.round(values / 257))
    assert np.array_equal(to_8_bits(values[:4096]), np.round(values[:4096] / 4095 * 255))
    assert np.array_equal(to_8_bits(values[:256]), values[:256])
    assert to_8_bits(np.array([0, 4222], np.uint16)).tolist() == [0, 255]
    assert to_8_bits(np.array([0, 4224], np.uint16)).tolist() == [0, 66]
    assert to_8_bits(np.array([100], np.uint16), 4095) == 6
    with pytest.raises(ValueRangeError, match='outside 16 bits'):
        to_8_bits(np.array([65536]))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'PA', 'RGBA', 'CMYK', 'YCbCr', 'I;16B'])
def test_modes_of_8_bits(mode):
    grey = Image.fromarray(np.repeat(PICTURE[..., :1], 3, axis=2) // 128 * 255)
    if mode == 'I;16B':
        values = np.asarray(grey)[..., 0].astype('>u2') * 257
        image = Image.frombytes(mode, grey.size, values.astype('>u2').tobytes())
    else:
        image = grey.convert('P').convert(mode) if mode == 'PA' else grey.convert(mode)
    for form in ('PNG', 'TIFF', 'JPEG', 'WEBP', 'AVIF', 'JPEG2000', 'TGA'):
        file = io.BytesIO()
        try:
            image.save(file, form, **dict(quality=95) if form in ('JPEG', 'WEBP', 'AVIF') else {})
        except (OSError, ValueError, KeyError):  # the format has no such mode
            continue
        seen = both(file.getvalue()) if form != 'JPEG' else decode_image(file.getvalue())
        assert np.abs(seen.astype(int) - np.asarray(grey)).max() <= (60 if form in (
            'JPEG', 'WEBP', 'AVIF') else 2), form


def test_transparency_is_dropped():
    image = Image.fromarray(np.dstack([PICTURE, np.zeros((60, 93), np.uint8)]))
    for form in ('PNG', 'TIFF'):
        file = io.BytesIO()
        image.save(file, form)
        assert np.array_equal(both(file.getvalue()), PICTURE)


@pytest.mark.parametrize('pixels, remark', [
    (PICTURE, ''), (PICTURE // 16, 'nearly black'),
    (np.full((40, 40, 3), 128, np.uint8), 'nearly uniform'),
    (np.zeros((1, 1, 3), np.uint8), 'nearly black'), (255 - PICTURE, '')])
def test_a_suspicious_range_is_remarked(pixels, remark):
    assert range_remark(pixels).startswith(remark) and bool(range_remark(pixels)) == bool(remark)
