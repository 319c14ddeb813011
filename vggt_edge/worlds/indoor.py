"""Rooms, and tables seen from close up."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import furniture as f
from . import materials as m
from .builder import Builder, Interest, Light, turn_z


def _opening_wall(
    b: Builder,
    length: float,
    height: float,
    look: m.Material,
    opening: tuple[float, float, float, float],
) -> None:
    """A wall along x on the outer side of y = 0, with a rectangular hole (x0, z0, x1, z1)."""
    x0, z0, x1, z1 = opening
    t = 0.2
    x = length / 2
    b.box(-x - t, 0, 0, x0, t, height, look)
    b.box(x1, 0, 0, x + t, t, height, look)
    b.box(x0, 0, z1, x1, t, height, look)
    if z0 > 0.02:
        b.box(x0, 0, 0, x1, t, z0, look)
    frame = m.lacquer(b.rng)
    for cx in (x0, (x0 + x1) / 2, x1):
        b.box(cx - 0.03, 0.08, z0, cx + 0.03, 0.13, z1, frame)
    for cz in (z0, z1):
        b.box(x0, 0.08, cz - 0.03, x1, 0.13, cz + 0.03, frame)
    if z0 > 0.3:
        b.box(x0 - 0.05, -0.12, z0 - 0.03, x1 + 0.05, 0.05, z0, frame)
    if b.rng.random() < 0.4:
        cloth = m.fabric(b.rng)
        for side, cx in ((-1, x0), (1, x1)):
            for k in range(3):
                b.box(
                    cx + side * (0.04 + 0.09 * k),
                    -0.11 - 0.02 * (k % 2),
                    max(z0 - 0.5, 0.05),
                    cx + side * (0.12 + 0.09 * k),
                    -0.06 - 0.02 * (k % 2),
                    z1 + 0.1,
                    cloth,
                )


def _wall_items(b: Builder, length: float, height: float) -> None:
    """Pictures, a radiator, a door, a shelf board on a wall along x at y = 0, facing -y."""
    rng = b.rng
    x = length / 2
    cursor = -x + rng.uniform(0.1, 0.6)
    while cursor < x - 0.5:
        which = rng.random()
        w = rng.uniform(0.3, 1.1)
        cx = cursor + w / 2
        z = rng.uniform(1.35, 1.75)
        if which < 0.5:
            h = w * rng.uniform(0.5, 1.5) / 2
            h = min(h, height - z - 0.1)
            frame = m.lacquer(rng)
            b.box(cx - w / 2, -0.03, z - h, cx + w / 2, 0, z + h, frame)
            edge = rng.uniform(0.01, 0.06)
            b.box(
                cx - w / 2 + edge,
                -0.033,
                z - h + edge,
                cx + w / 2 - edge,
                0,
                z + h - edge,
                m.printed(rng, h),
            )
        elif which < 0.62:
            door = m.timber(rng)
            b.box(cx - 0.5, -0.04, 0, cx + 0.5, 0, 2.1, m.timber(rng))
            b.box(cx - 0.43, -0.06, 0, cx + 0.43, 0, 2.03, door)
            for low in (0.15, 1.1):
                b.box(cx - 0.3, -0.075, low, cx + 0.3, 0, low + 0.75, door)
            b.rod((cx + 0.36, -0.1, 1.02), (cx + 0.26, -0.1, 1.02), 0.012, m.metal(rng))
            w = 1.1
        elif which < 0.72:
            white = m.lacquer(rng)
            for k in range(min(int(w / 0.07), 12)):
                b.box(
                    cx - w / 2 + 0.07 * k,
                    -0.12,
                    0.12,
                    cx - w / 2 + 0.07 * k + 0.05,
                    -0.04,
                    0.7,
                    white,
                )
        elif which < 0.87:
            b.box(cx - w / 2, -0.22, z - 0.25, cx + w / 2, 0, z - 0.22, m.timber(rng))
            for _ in range(rng.integers(1, 5)):
                with b.placed(
                    cx + rng.uniform(-0.42, 0.42) * w, -0.11, z - 0.22, rng.uniform(-0.5, 0.5)
                ):
                    f.thing(b, rng.uniform(0.08, 0.2))
        cursor += w + rng.uniform(0.1, 1.0)


def _furnish_wall(
    b: Builder, length: float, height: float, targets: list[np.ndarray], kitchen: bool
) -> None:
    """Furniture along a wall at y = 0, in front of it (towards -y)."""
    rng = b.rng
    x = length / 2 - 0.35
    cursor = -x + rng.uniform(0, 0.4)
    while cursor < x - 0.4:
        w = min(rng.uniform(0.6, 2.0), x - cursor)
        cx = cursor + w / 2
        which = rng.random()
        if kitchen and which < 0.75:
            which = 0.5
        if which < 0.25:
            depth = rng.uniform(0.25, 0.4)
            with b.placed(cx, -depth / 2 - 0.03):
                f.shelf(b, w, min(rng.uniform(0.8, 2.3), height - 0.2), depth)
        elif which < 0.6:
            depth = rng.uniform(0.4, 0.62)
            tall = 0.88 if kitchen else rng.uniform(0.45, 1.3)
            with b.placed(cx, -depth / 2 - 0.03):
                f.cabinet(b, w, tall, depth, int(rng.integers(1, 4)))
                with b.placed(0, 0, tall + 0.03):
                    f.heap(b, min(w, depth * 2) * 0.36, int(rng.integers(1, 7)), 0.08, 0.35)
            if kitchen and rng.random() < 0.7:
                with b.placed(cx, -0.2, 1.45):
                    f.cabinet(b, w, min(0.7, height - 1.6), 0.35, 1)
        elif which < 0.72:
            with b.placed(cx, -0.5):
                f.sofa(b, max(w, 0.9))
        elif which < 0.84:
            with b.placed(cx, -0.4):
                f.table(b, w, 0.6, rng.uniform(0.7, 0.78))
                with b.placed(0, 0, 0.76):
                    f.heap(b, 0.28, int(rng.integers(2, 6)), 0.08, 0.4)
            with b.placed(cx, -0.95, 0, np.pi + rng.normal(0, 0.4)):
                f.chair(b)
        elif which < 0.92:
            with b.placed(cx, -0.35):
                f.plant(b, rng.uniform(0.6, 1.6))
        else:
            with b.placed(cx, -0.35):
                f.lamp(b, rng.uniform(1.2, 1.8))
        targets.append(b.world(cx, -0.4, rng.uniform(0.3, 1.4)))
        cursor += w + rng.uniform(0.02, 0.9)


def _room_light(
    b: Builder, x: float, y: float, height: float, windows: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    rng = b.rng
    warm = c.color(rng.uniform(0.07, 0.13), rng.uniform(0, 0.35), 1.0)
    day = c.color(0.58, rng.uniform(0, 0.2), 1.0)
    ambient = rng.uniform(0.25, 0.7) * (warm if not windows else (warm + day) / 2)
    bounce = ambient * rng.uniform(0.45, 0.9)
    lamp = np.array(
        [rng.uniform(-0.6, 0.6) * x, rng.uniform(-0.6, 0.6) * y, height - rng.uniform(0.1, 0.5)]
    )
    horizon = day * rng.uniform(0.9, 2.5)
    b.light = light = Light(
        key=lamp,
        sun=False,
        key_color=warm * rng.uniform(0.5, 1.3),
        above=ambient,
        below=bounce,
        horizon=horizon,
        zenith=horizon * 0.9,
        fill=windows[0][0] * [0.92, 0.92, 1] if windows else lamp * [-1, -1, 1],
        fill_color=day * rng.uniform(0.1, 0.8),
        clouds=rng.uniform(0, 0.5),
        reach=rng.uniform(0.25, 0.6),
        seed=rng.uniform(0, 30),
    )
    if windows and rng.random() < 0.65:
        # Sun through a window onto a point of the floor.
        place, _ = windows[rng.integers(len(windows))]
        spot = np.array([rng.uniform(-0.6, 0.6) * x, rng.uniform(-0.6, 0.6) * y, 0.2])
        way = place - spot
        way[2] = max(way[2], 0.4 * float(np.linalg.norm(way[:2])))
        light.key, light.sun = way / np.linalg.norm(way), True
        light.key_color = c.color(0.11, rng.uniform(0, 0.3), 1.0) * rng.uniform(1.0, 3.0)
        light.fill, light.fill_color = place * [0.9, 0.9, 1.0], day * rng.uniform(0.3, 0.9)


def room(b: Builder) -> None:
    """A furnished room: living room, kitchen, study, corridor; windows show sky or a backdrop."""
    rng = b.rng
    x, y = rng.uniform(1.4, 3.6), rng.uniform(1.4, 3.2)
    height = rng.uniform(2.3, 3.2)
    kitchen = rng.random() < 0.4
    look = m.wall(rng)
    b.box(-x - 0.2, -y - 0.2, -0.2, x + 0.2, y + 0.2, 0, m.floor(rng))
    b.box(
        -x - 0.2,
        -y - 0.2,
        height,
        x + 0.2,
        y + 0.2,
        height + 0.2,
        m.material(rng, "paint", c.pale(rng, 0.02)),
        shadow=False,
    )
    targets: list[np.ndarray] = []
    windows: list[tuple[np.ndarray, np.ndarray]] = []
    skirting = m.lacquer(rng) if rng.random() < 0.6 else None
    for side in range(4):
        length, reach = (2 * x, y) if side % 2 == 0 else (2 * y, x)
        yaw = side * np.pi / 2
        at = turn_z(yaw) @ np.array([0, reach, 0])
        with b.placed(float(at[0]), float(at[1]), 0, yaw):
            skin = m.wall(rng) if rng.random() < 0.25 else look
            if rng.random() < 0.3:
                w = rng.uniform(0.3, 0.9) * min(length * 0.4, 1.4)
                cx = rng.uniform(-1, 1) * (length / 2 - w - 0.2) * 0.8
                low = rng.choice([0.02, 0.9, 0.9, 0.5])
                high = min(rng.uniform(1.9, 2.4), height - 0.15)
                _opening_wall(b, length, height, skin, (cx - w, low, cx + w, high))
                windows.append((b.world(cx, 0.3, (low + high) / 2), b.world(cx, 3, 1.5)))
                if rng.random() < 0.7:
                    b.box(
                        -8,
                        6,
                        -3,
                        8,
                        7,
                        rng.uniform(1.5, 6),
                        m.material(
                            rng,
                            rng.choice(["windows", "foliage", "bricks"]),
                            c.grey(rng),
                            scale=1.5,
                        ),
                        shadow=False,
                    )
            else:
                b.box(-length / 2 - 0.2, 0, 0, length / 2 + 0.2, 0.2, height, skin)
                _wall_items(b, length, height)
            if skirting is not None:
                b.box(-length / 2, -0.02, 0, length / 2, 0, 0.1, skirting)
            if rng.random() < 0.75 and reach > 1.2:
                _furnish_wall(b, length, height, targets, kitchen)
            targets.append(b.world(rng.uniform(-0.4, 0.4) * length, 0, rng.uniform(0.8, 1.7)))
    if rng.random() < 0.5:
        b.box(-x * 0.6, -y * 0.6, 0, x * 0.6, y * 0.6, 0.01, m.fabric(rng))
    if min(x, y) > 1.7:
        with b.placed(rng.uniform(-0.3, 0.3) * x, rng.uniform(-0.3, 0.3) * y, 0, rng.uniform(0, 6)):
            _centre_piece(b, targets)
    if rng.random() < 0.6:
        z = height - rng.uniform(0.3, 0.9)
        lx, ly = rng.uniform(-0.3, 0.3) * x, rng.uniform(-0.3, 0.3) * y
        b.cylinder(lx, ly, z + 0.1, height, 0.008, m.metal(rng))
        glow = m.material(rng, "paint", c.pale(rng), emission=rng.uniform(0, 3))
        b.cylinder(lx, ly, z - 0.1, z + 0.12, 0.2, glow, top=0.4, hollow=True)
    _room_light(b, x, y, height, windows)
    b.interest = Interest(
        low=np.array([-x + 0.35, -y + 0.35, 0.6]),
        high=np.array([x - 0.35, y - 0.35, min(height - 0.35, 2.0)]),
        targets=targets,
        distance=(0.8, 4.0),
    )


def _centre_piece(b: Builder, targets: list[np.ndarray]) -> None:
    rng = b.rng
    which = rng.random()
    if which < 0.5:
        w, d, h = rng.uniform(0.9, 1.8), rng.uniform(0.7, 1.0), rng.uniform(0.7, 0.78)
        f.table(b, w, d, h)
        with b.placed(0, 0, h):
            f.heap(b, d * 0.4, int(rng.integers(2, 9)), 0.08, 0.3)
        for side in range(4):
            if rng.random() < 0.6:
                reach = (d if side % 2 == 0 else w) / 2 + rng.uniform(0.1, 0.3)
                at = turn_z(side * np.pi / 2) @ np.array([0, reach, 0])
                with b.placed(float(at[0]), float(at[1]), 0, side * np.pi / 2 + rng.normal(0, 0.2)):
                    f.chair(b)
        targets.append(b.world(0, 0, h))
    elif which < 0.7:
        with b.placed(0, 0.6):
            f.sofa(b, rng.uniform(1.2, 2.0))
        with b.placed(0, -0.5):
            f.table(b, 0.9, 0.5, 0.4)
            with b.placed(0, 0, 0.4):
                f.heap(b, 0.2, 4, 0.06, 0.2)
        targets.append(b.world(0, 0, 0.5))
    elif which < 0.85:
        f.bed(b)
        targets.append(b.world(0, 0, 0.5))
    else:
        f.heap(b, 0.8, 8, 0.1, 0.6)
        targets.append(b.world(0, 0, 0.2))


def table(b: Builder) -> None:
    """Things on a table or shelf board, seen from near."""
    rng = b.rng
    w, d = rng.uniform(0.5, 1.2), rng.uniform(0.4, 0.9)
    top = m.timber(rng) if rng.random() < 0.6 else m.anything(rng, 0.8)
    b.box(-w, -d, -0.04, w, d, 0, top)
    if rng.random() < 0.3:
        b.box(-w * 0.7, -d * 0.6, 0, w * 0.7, d * 0.6, 0.004, m.fabric(rng))
    f.heap(b, min(w, d) * 0.85, int(rng.integers(5, 22)), 0.07, rng.choice([0.22, 0.4]))
    if rng.random() < 0.4:
        with b.placed(0, d * 0.7):
            f.heap(b, 0.3, 3, 0.2, 0.4)
    floor = -rng.uniform(0.6, 0.9)
    b.box(-3, -3, floor - 0.1, 3, 3, floor, m.floor(rng))
    for side in range(4):
        if rng.random() < 0.8:
            yaw = side * np.pi / 2
            away = turn_z(yaw) @ np.array([0, rng.uniform(0.3, 2.5) + max(w, d), 0])
            with b.placed(float(away[0]), float(away[1]), floor, yaw):
                b.box(-3, 0, 0, 3, 0.1, 3.2, m.wall(rng))
                _wall_items(b, 3, 2.8)
    for side in (-1, 1):
        b.box(
            side * w * 0.9, -d * 0.9, floor, side * (w * 0.9 - 0.06), d * 0.9, -0.04, m.timber(rng)
        )
    _room_light(b, 1.2, 1.2, rng.uniform(1.0, 1.8), [])
    b.interest = Interest(
        low=np.array([-2.2, -2.2, 0.02]),
        high=np.array([2.2, 2.2, 1.4]),
        targets=[np.array([0, 0, 0.08]), np.array([0.1, 0.1, 0.05]), np.array([-0.15, 0.0, 0.1])],
        distance=(0.45, 1.5),
        orbit=True,
    )
