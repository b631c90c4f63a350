"""Heat maps of layers for `rlx2 report`: one pixel a link, in PNG, which the page stretches without smoothing."""

import base64
import struct
import zlib

import numpy as np

CELLS = 256  # rows and columns of a heat map; of a wider layer several links share a cell
LEVELS = 63  # colours from the strongest negative weight to the strongest positive one
# Strong negative, weak, strong positive: each to be told from white paper as from black.
ENDS = np.array([[201, 66, 38], [168, 167, 163], [38, 122, 204]], float)
FAINT = 95  # of 255: how opaque links on no path are


def heat_map(weight: np.ndarray, alive: np.ndarray, scale: float) -> str:
    """
    Draw a layer.

    :param weight: weights, NaN where there is no link, ``[out, in]``
    :param alive: whether a link lies on a path, likewise
    :param scale: magnitude of the strongest colour
    :return: the address of an image with the picture in it
    """
    levels = np.rint((np.clip(np.nan_to_num(weight) / scale, -1, 1) + 1) / 2 * (LEVELS - 1)).astype(int)
    colours = np.where(np.isnan(weight), 0, 1 + levels + np.where(alive, 0, LEVELS)).astype(np.uint8)
    return f"data:image/png;base64,{base64.b64encode(_png(strongest(weight, colours, CELLS))).decode()}"


def strongest(weight: np.ndarray, values: np.ndarray, cells: int) -> np.ndarray:
    """
    Shrink a layer so that no live link gets lost: of the links that share a cell, the one of largest magnitude is kept.

    :param weight: weights, NaN where there is no link, ``[out, in]``
    :param values: what to give of each link, likewise
    :param cells: rows and columns to keep at most
    :return: values, as many or fewer
    """
    blocks = [-(-size // cells) for size in weight.shape]
    padding = [(0, -size % block) for size, block in zip(weight.shape, blocks, strict=True)]
    rows, columns = (-(-size // block) for size, block in zip(weight.shape, blocks, strict=True))

    def in_cells(padded: np.ndarray) -> np.ndarray:
        return padded.reshape(rows, blocks[0], columns, blocks[1]).swapaxes(1, 2).reshape(rows, columns, -1)

    best = in_cells(np.pad(np.nan_to_num(np.abs(weight), nan=-1.0), padding, constant_values=-2.0)).argmax(axis=2)
    return np.take_along_axis(in_cells(np.pad(values, padding)), best[..., None], axis=2)[..., 0]


def _palette() -> np.ndarray:
    """Give red, green, blue and opacity of: no link; links on a path by weight; the others by weight."""
    colours = np.stack([np.interp(np.linspace(0, 2, LEVELS), (0, 1, 2), ends) for ends in ENDS.T], axis=1)
    shown = [np.column_stack([colours, np.full(LEVELS, opacity)]) for opacity in (255, FAINT)]
    return np.concatenate([np.zeros((1, 4)), *shown]).round().astype(np.uint8)


def _png(colours: np.ndarray) -> bytes:
    """Write numbers of colours as an image (https://www.w3.org/TR/png/)."""
    rows, columns = colours.shape
    palette = _palette()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits a pixel, by a palette
    lines = np.pad(colours, [(0, 0), (1, 0)]).tobytes()  # each begins with the number of its filter, 0
    parts = [(b"IHDR", header), (b"PLTE", palette[:, :3].tobytes()), (b"tRNS", palette[:, 3].tobytes())]
    parts += [(b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
