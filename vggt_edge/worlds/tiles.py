"""Rays by the tile: which solids a tile of 8 x 8 rays can meet, and what it meets first.

A view is cut into tiles. For camera rays a solid is tried only in tiles that its projected box
overlaps; for shadow rays only where the sweep of the tile's points towards the light touches its
box. What is left is a short list of (tile, solid) pairs, worked through in chunks that fit caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .shapes import FAR, Solids, intersect

TILE = 8
_CHUNK_PAIRS = {"cpu": 2048}
_MANY_PAIRS = 1 << 18

_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]


class Grid(NamedTuple):
    """The tiling of V views; tiles are numbered view by view, row by row: Q = rows x cols a view.

    Fields
        scene   (V,) int64, the scene of each view.
        center  (V, 3) camera centres, world.
        rotation (V, 3, 3) world_from_camera rotations.
        focal   (V,) pixels.
        height, width   of the picture; the tiles may reach beyond.
    """

    scene: Tensor
    center: Tensor
    rotation: Tensor
    focal: Tensor
    height: int
    width: int

    @property
    def rows(self) -> int:
        """Tiles down a view."""
        return -(-self.height // TILE)

    @property
    def cols(self) -> int:
        """Tiles across a view."""
        return -(-self.width // TILE)

    def views(self, start: int, end: int) -> Grid:
        """The tiling of some of the views."""
        some = slice(start, end)
        return self._replace(
            scene=self.scene[some],
            center=self.center[some],
            rotation=self.rotation[some],
            focal=self.focal[some],
        )

    def to_image(self, tiles: Tensor) -> Tensor:
        """(..., V * Q, 64) values in tiles to (..., V, height, width) pictures."""
        image = tiles.unflatten(-2, (-1, self.rows, self.cols)).unflatten(-1, (TILE, TILE))
        image = image.transpose(-3, -2).flatten(-2).flatten(-3, -2)
        return image[..., : self.height, : self.width]

    def to_tiles(self, image: Tensor) -> Tensor:
        """(V, height, width) pictures to (V * Q, 64) values in tiles, edges repeated."""
        missing = (0, self.cols * TILE - self.width, 0, self.rows * TILE - self.height)
        if any(missing):
            image = F.pad(image[None], missing, mode="replicate")[0]
        tiles = image.view(-1, self.rows, TILE, self.cols, TILE).transpose(2, 3)
        return tiles.reshape(-1, TILE * TILE)

    def directions(self) -> Tensor:
        """(3, V * Q, 64) world directions of the rays, of z-depth 1."""
        device = self.center.device
        u = torch.arange(self.cols * TILE, device=device) - self.width / 2
        v = torch.arange(self.rows * TILE, device=device) - self.height / 2
        shape = (self.rows, self.cols, TILE, TILE)
        plane = torch.stack(
            [
                u.view(1, self.cols, 1, TILE).expand(shape).reshape(-1),
                v.view(self.rows, 1, TILE, 1).expand(shape).reshape(-1),
            ]
        )
        x, y = (plane[:, None] / self.focal[:, None]).unbind(0)
        axes = self.rotation.permute(1, 2, 0)[..., None]
        world = axes[:, 0] * x + axes[:, 1] * y + axes[:, 2]
        return world.reshape(3, -1, TILE * TILE)


def _corners(solids: Solids) -> Tensor:
    signs = torch.tensor(
        [[1.0 if i & bit else -1.0 for bit in (1, 2, 4)] for i in range(8)],
        device=solids.center.device,
    )
    # frame = diag(1/half) R, so R^T diag(bound) is frame^T diag(half bound).
    axes = solids.frame.transpose(1, 2) * (solids.half * solids.bound)[:, None, :]
    return solids.center[:, None] + signs @ axes.transpose(1, 2)


def _seen(grid: Grid, solids: Solids) -> Tensor:
    """(V, Q, per_scene) bool: whether a solid's box may show in a tile."""
    corners = _corners(solids).view(-1, solids.per_scene * 8, 3)[grid.scene]
    camera = (corners - grid.center[:, None]) @ grid.rotation
    camera = camera.view(len(grid.scene), solids.per_scene, 8, 3)
    a, b = (torch.tensor(ends, device=camera.device) for ends in zip(*_EDGES, strict=True))
    start, end = camera[:, :, a], camera[:, :, b]
    # Clip the twelve edges to the near plane, then take the bounds of what is left.
    near = 0.02
    za, zb = start[..., 2:], end[..., 2:]
    slope = torch.where((za - zb).abs() < 1e-9, torch.ones_like(za), zb - za)
    cut = start + (end - start) * ((near - za) / slope)
    start, end = torch.where(za < near, cut, start), torch.where(zb < near, cut, end)
    behind = ((za < near) & (zb < near))[..., 0]
    points = torch.stack([start, end], -2)
    pixel = points[..., :2] / points[..., 2:].clamp_min(near / 2)
    pixel = pixel * grid.focal[:, None, None, None, None]
    hidden = behind[..., None, None]
    low = pixel.masked_fill(hidden, FAR).flatten(2, 3).amin(2) - 1
    high = pixel.masked_fill(hidden, -FAR).flatten(2, 3).amax(2) + 1
    first_col = torch.arange(grid.cols, device=camera.device) * TILE - grid.width / 2
    first_row = torch.arange(grid.rows, device=camera.device) * TILE - grid.height / 2
    in_col = (low[:, None, :, 0] <= first_col[:, None] + TILE - 1) & (
        high[:, None, :, 0] >= first_col[:, None]
    )
    in_row = (low[:, None, :, 1] <= first_row[:, None] + TILE - 1) & (
        high[:, None, :, 1] >= first_row[:, None]
    )
    used = (solids.half[:, 0] > 0).view(-1, solids.per_scene)[grid.scene]
    return ((in_row[:, :, None] & in_col[:, None]) & used[:, None, None]).flatten(1, 2)


def _pairs(mask: Tensor, grid: Grid, solids: Solids) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The set entries of (V, Q, per_scene) as chunks of (kind, tiles, solids) of one kind each."""
    view, tile, local = mask.nonzero(as_tuple=True)
    tile = view * mask.shape[1] + tile
    solid = grid.scene[view] * solids.per_scene + local
    kind = solids.kind[solid]
    chunk = _CHUNK_PAIRS.get(mask.device.type, _MANY_PAIRS)
    for value in torch.unique(solids.kind).tolist():
        index = (kind == value).nonzero().squeeze(1)
        for part in index.split(chunk):
            yield value, tile[part], solid[part]


def first_hits(
    grid: Grid, solids: Solids, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[Tensor, Tensor]:
    """What the camera rays meet first; rays pass ``shift`` (u, v) pixels beside pixel centres.

    Returns:
        (V * Q, 64) z-depth, above ``FAR`` where nothing is met, and (V * Q, 64) int64 rows of
        ``solids``, 0 there.
    """
    device = grid.center.device
    offset = torch.arange(TILE, device=device, dtype=torch.float32)
    steps = torch.stack([offset.repeat(TILE) + shift[0], offset.repeat_interleave(TILE) + shift[1]])
    tiles_per_view = grid.rows * grid.cols
    # Depth and row share a 64-bit key: positive floats order as their bits do.
    best = torch.full(
        (len(grid.scene) * tiles_per_view, TILE * TILE), 1 << 62, dtype=torch.int64, device=device
    )
    for kind, tile, solid in _pairs(_seen(grid, solids), grid, solids):
        view, place = tile // tiles_per_view, tile % tiles_per_view
        frame = solids.frame[solid]
        o = frame @ (grid.center[view] - solids.center[solid])[..., None]
        to_local = frame @ grid.rotation[view]
        scale = 1 / grid.focal[view]
        corner = torch.stack(
            [
                (place % grid.cols * TILE - grid.width / 2) * scale,
                torch.div(place, grid.cols, rounding_mode="floor") * (TILE * scale)
                - grid.height / 2 * scale,
                torch.ones_like(scale),
            ],
            -1,
        )
        base = to_local @ corner[..., None]
        d = torch.baddbmm(
            base, to_local[..., :2] * scale[:, None, None], steps.expand(len(tile), -1, -1)
        )
        t = intersect(kind, o, d, solids.extra[solid])
        key = t.clamp(0, _MAX_KEY).view(torch.int32).to(torch.int64) * _ROWS + solid[:, None]
        best.scatter_reduce_(0, tile[:, None].expand(-1, TILE * TILE), key, "amin")
    depth = (best // _ROWS).clamp(max=_MAX_BITS).to(torch.int32).view(torch.float32)
    return depth, torch.where(depth < FAR, best % _ROWS, 0)


_ROWS = 1 << 24
_MAX_KEY = 1e30
# Shadow rays start at parameter 1e-3, one centimetre of this.
_SUN_STEP = 10.0
_MAX_BITS = int(torch.tensor(_MAX_KEY).view(torch.int32))


def blocked(
    grid: Grid, solids: Solids, points: Tensor, wanted: Tensor, light: Tensor, sun: Tensor
) -> Tensor:
    """(V * Q, 64) bool: whether a solid stands between points and their scene's light.

    Args:
        grid: the tiling of ``points``.
        solids: what may block.
        points: (3, V * Q, 64) world, already lifted off their surface.
        wanted: (V * Q, 64) bool: points whose answer matters.
        light: (V, 3) position of a lamp, or unit direction towards the sun.
        sun: (V,) bool: which of the two it is.
    """
    views, tiles = len(grid.scene), grid.rows * grid.cols
    weight = wanted.to(points.dtype)
    middle = (points * weight).sum(2) / weight.sum(1).clamp_min(1)
    offset = (points - middle[..., None]) * weight
    radius = (offset * offset).sum(0).amax(1).sqrt()
    target = light.repeat_interleave(tiles, 0)
    is_sun = sun.repeat_interleave(tiles, 0)[:, None]
    start = middle.T.contiguous()
    way = torch.where(is_sun, target * _SUN_STEP, target - start)

    # A tile's points sweep a tube towards the light: a ray against boxes grown by its radius.
    rotation = (solids.frame * solids.half[..., None]).view(-1, solids.per_scene, 3, 3)[grid.scene]
    center = solids.center.view(-1, solids.per_scene, 3)[grid.scene]
    bound = solids.bound.view(-1, solids.per_scene, 3)[grid.scene]
    moved = (rotation @ center[..., None]).squeeze(-1)
    start, way = start.view(views, tiles, 3), way.view(views, tiles, 3)
    near = torch.full((views, tiles, solids.per_scene), -FAR, device=points.device)
    far = -near
    for axis in range(3):
        turn = rotation[:, :, axis].transpose(1, 2)
        o = start @ turn - moved[:, None, :, axis]
        inverse = (way @ turn + 1e-9).reciprocal()
        reach = (bound[:, None, :, axis] + radius.view(views, tiles, 1)) * inverse.abs()
        near = torch.maximum(near, o * -inverse - reach)
        far = torch.minimum(far, reach - o * inverse)
    casts = (solids.shadow & (solids.half[:, 0] > 0)).view(-1, 1, solids.per_scene)[grid.scene]
    some = wanted.any(1).view(views, tiles, 1)
    limit = torch.where(is_sun, FAR, 1.0).view(views, tiles, 1)
    mask = (near <= far) & (far > 0) & (near < limit) & casts & some

    reached = torch.full(wanted.shape, _MAX_KEY, device=points.device)
    by_tile = points.transpose(0, 1).contiguous()
    for kind, tile, solid in _pairs(mask, grid, solids):
        frame = solids.frame[solid]
        from_point = by_tile[tile]
        end = target[tile][..., None]
        o = frame @ (from_point - solids.center[solid][..., None])
        if bool(sun.all()):
            d = (frame @ (end * _SUN_STEP)).expand_as(o)
        else:
            toward = torch.where(is_sun[tile][..., None], end * _SUN_STEP, end - from_point)
            d = frame @ toward
        t = intersect(kind, o, d, solids.extra[solid])
        reached.scatter_reduce_(0, tile[:, None].expand(-1, TILE * TILE), t, "amin")
    return reached < torch.where(is_sun, FAR, 0.999)
