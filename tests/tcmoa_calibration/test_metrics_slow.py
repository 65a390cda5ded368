"""Each metric against a slow implementation: loops over pixels and windows of tiny images."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from tcmoa_calibration import metrics

Plane = NDArray[np.float64]
SHAPE = (17, 19)


def smooth(seed: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Return blobs, a flat area and a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = 120 + 80 * np.sin(rows / rng.uniform(2, 5) + rng.uniform(0, 6)) * np.cos(
        columns / rng.uniform(2, 5)
    )
    image += rng.normal(0, 4, shape)
    image[: shape[0] // 3, : shape[1] // 3] = 40 + 10 * seed
    return np.clip(image, 0, 255).astype(np.uint8)


TRIPLES = [tuple(smooth(3 * i + k) for k in range(3)) for i in range(3)]
every_triple = pytest.mark.parametrize("images", TRIPLES, ids=["first", "second", "third"])
Triple = tuple[NDArray[np.uint8], ...]


def whole(image: NDArray[np.uint8]) -> Plane:
    return image.astype(np.float64)


def slow_entropy(*images: NDArray[np.uint8]) -> float:
    """Compute the entropy of the tuples of levels at each pixel, in bits."""
    counts: dict[tuple[int, ...], int] = {}
    for levels in zip(*(image.ravel().tolist() for image in images), strict=True):
        counts[levels] = counts.get(levels, 0) + 1
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def slow_information(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return slow_entropy(first) + slow_entropy(second) - slow_entropy(first, second)


def slow_stretch(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    low, high = int(image.min()), int(image.max())
    return np.array(
        [[math.floor((int(v) - low) / (high - low) * 255 + 0.5) for v in row] for row in image], np.uint8
    )


@every_triple
def test_en_mi_nmi_qncie(images: Triple) -> None:
    x, y, f = images
    assert metrics.en(x, y, f) == pytest.approx(slow_entropy(f), abs=1e-12)
    mi = slow_information(x, f) + slow_information(y, f)
    assert metrics.mi(x, y, f) == pytest.approx(mi, abs=1e-12)

    sx, sy, sf = (slow_stretch(image) for image in images)
    stretched = slow_information(sx, sf) + slow_information(sy, sf)
    assert metrics.mi(x, y, f, profile="vifb") == pytest.approx(stretched * math.log(2), abs=1e-12)
    nmi = sum(2 * slow_information(s, sf) / (slow_entropy(s) + slow_entropy(sf)) for s in (sx, sy))
    assert metrics.nmi(x, y, f) == pytest.approx(nmi, abs=1e-12)

    matrix = np.array([[1.0 if p is q else slow_information(p, q) / 8 for p in images] for q in images])
    eigenvalues = np.linalg.eigvals(matrix).real
    qncie = 1 + sum(v / 3 * math.log(v / 3, 256) for v in eigenvalues)
    assert metrics.qncie(x, y, f) == pytest.approx(qncie, abs=1e-12)


def test_mi_of_tang_counts_255_as_254_in_the_joint_histogram_only() -> None:
    x, y, f = (np.where(image > 180, 254 + image % 2, image).astype(np.uint8) for image in TRIPLES[0])

    def information(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
        both = slow_entropy(np.minimum(first, 254), np.minimum(second, 254))
        return slow_entropy(first) + slow_entropy(second) - both

    assert metrics.mi(x, y, f, profile="tang") == pytest.approx(
        information(x, f) + information(y, f), abs=1e-12
    )
    assert metrics.mi(x, y, f, profile="tang") - metrics.mi(x, y, f) > 1e-3


@every_triple
def test_sd_of_tang_by_loops(images: Triple) -> None:
    f = images[2]
    mean = sum(int(v) for v in f.ravel()) / f.size
    total = 0
    for value in f.ravel().tolist():
        d = min(max(math.floor(value - mean + 0.5), 0), 255)
        total += min(d * d, 255)
    assert metrics.sd(*images, profile="tang") == pytest.approx(math.sqrt(total / f.size), abs=1e-12)


def window(side: int, sigma: float) -> Plane:
    at = np.arange(side) - side // 2
    w = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * sigma**2))
    return np.asarray(w / w.sum())


def places(shape: tuple[int, ...], side: int) -> list[tuple[slice, slice]]:
    rows, columns = range(shape[0] - side + 1), range(shape[1] - side + 1)
    return [(slice(r, r + side), slice(c, c + side)) for r, c in product(rows, columns)]


def covariance(p: Plane, q: Plane, w: Plane) -> float:
    return float(np.sum(w * (p - np.sum(w * p)) * (q - np.sum(w * q))))


def slow_similarity(p: Plane, q: Plane, w: Plane, c1: float, c2: float) -> float:
    mp, mq = float(np.sum(w * p)), float(np.sum(w * q))
    luminance = (2 * mp * mq + c1) / (mp**2 + mq**2 + c1)
    return luminance * (2 * covariance(p, q, w) + c2) / (covariance(p, p, w) + covariance(q, q, w) + c2)


@every_triple
def test_ssim_qs_qw_qe(images: Triple) -> None:
    w = window(11, 1.5)

    def loops(x: Plane, y: Plane, f: Plane) -> tuple[float, float, float]:
        ssim, mixed, saliency = [], [], []
        for place in places(f.shape, 11):
            px, py, pf = x[place], y[place], f[place]
            sx, sy = (slow_similarity(p, pf, w, 6.5025, 58.5225) for p in (px, py))
            vx, vy = covariance(px, px, w), covariance(py, py, w)
            lam = vx / (vx + vy) if vx + vy > 1e-8 else 0.5
            ssim.append((sx + sy) / 2)
            mixed.append(lam * sx + (1 - lam) * sy)
            saliency.append(max(vx, vy))
        return float(np.mean(ssim)), float(np.mean(mixed)), float(np.dot(mixed, saliency) / np.sum(saliency))

    def edges(p: Plane) -> Plane:
        padded = np.pad(p, 1)
        out = np.zeros_like(p)
        for r, c in product(range(p.shape[0]), range(p.shape[1])):
            near = padded[r : r + 3, c : c + 3]
            out[r, c] = math.hypot(near[:, 2].sum() - near[:, 0].sum(), near[2].sum() - near[0].sum())
        return out

    planes = [whole(image) for image in images]
    ssim, qs, qw = loops(planes[0], planes[1], planes[2])
    of_edges = loops(edges(planes[0]), edges(planes[1]), edges(planes[2]))[2]
    assert metrics.ssim(*images) == pytest.approx(ssim, abs=1e-10)
    assert metrics.ssim(*images, profile="vifb") == pytest.approx(2 * ssim, abs=1e-10)
    assert metrics.qs(*images) == pytest.approx(qs, abs=1e-8)
    assert metrics.qw(*images) == pytest.approx(qw, abs=1e-8)
    assert metrics.qw(*images, profile="mefb") == pytest.approx(of_edges, abs=1e-8)
    assert metrics.qe(*images) == pytest.approx(qw * of_edges, abs=1e-8)


@every_triple
def test_qc(images: Triple) -> None:
    x, y, f = (whole(image) for image in images)
    w, out = window(7, 1.5), []
    for place in places(f.shape, 7):
        px, py, pf = x[place], y[place], f[place]
        quality, cov = [], []
        for p in (px, py):
            flat = np.ptp(p) == 0 or np.ptp(pf) == 0
            cov.append(0.0 if flat else covariance(p, pf, w))
            mp, mf = np.sum(w * p), np.sum(w * pf)
            luminance = (2 * mp * mf + 2e-16) / (mp**2 + mf**2 + 2e-16)
            variances = sum(0.0 if np.ptp(q) == 0 else covariance(q, q, w) for q in (p, pf))
            quality.append(luminance * (2 * cov[-1] + 2e-16) / (variances + 2e-16))
        total = cov[0] + cov[1]
        sim = min(max(cov[0] / total, 0), 1) if total else 0.5
        out.append(sim * quality[0] + (1 - sim) * quality[1])
    assert metrics.qc(*images) == pytest.approx(np.mean(out), abs=1e-8)


def slow_sobel(p: Plane) -> tuple[Plane, Plane]:
    """Compute strength and angle with the masks, black beyond the border."""
    padded = np.pad(p, 1)
    strength, angle = np.zeros_like(p), np.zeros_like(p)
    for r, c in product(range(p.shape[0]), range(p.shape[1])):
        near = padded[r : r + 3, c : c + 3]
        gx = near[0, 0] + 2 * near[1, 0] + near[2, 0] - near[0, 2] - 2 * near[1, 2] - near[2, 2]
        gy = near[2, 0] + 2 * near[2, 1] + near[2, 2] - near[0, 0] - 2 * near[0, 1] - near[0, 2]
        strength[r, c] = math.sqrt(gx * gx + gy * gy)
        angle[r, c] = math.atan(gy / gx) if gx else math.pi / 2
    return strength, angle


@every_triple
@pytest.mark.parametrize("profile", ["correct", "vifb"])
def test_qabf(images: Triple, profile: metrics.Profile) -> None:
    (gx, ax), (gy, ay), (gf, af) = (slow_sobel(whole(image)) for image in images)
    above = below = 0.0
    for r, c in product(range(SHAPE[0]), range(SHAPE[1])):
        for g, a in ((gx[r, c], ax[r, c]), (gy[r, c], ay[r, c])):
            of_equals = 1.0 if profile == "correct" else g
            ratio = of_equals if g == gf[r, c] else min(g, gf[r, c]) / max(g, gf[r, c])
            orientation = 1 - abs(a - af[r, c]) / (math.pi / 2)
            q = (
                0.9994
                / (1 + math.exp(-15 * (ratio - 0.5)))
                * 0.9879
                / (1 + math.exp(-22 * (orientation - 0.8)))
            )
            above += q * g
            below += g
    assert metrics.qabf(*images, profile=profile) == pytest.approx(above / below, abs=1e-12)


@every_triple
def test_qg(images: Triple) -> None:
    (gx, ax), (gy, ay), (gf, af) = (slow_sobel(whole(image)) for image in images)
    ratios = []
    for r, c in product(range(SHAPE[0]), range(SHAPE[1])):
        above = 0.0
        for g, a in ((gx[r, c], ax[r, c]), (gy[r, c], ay[r, c])):
            ratio = (min(g, gf[r, c]) + 1e-5) / (max(g, gf[r, c]) + 1e-5)
            orientation = abs(abs(a - af[r, c]) - math.pi / 2) * 2 / math.pi
            above += g / (1 + math.exp(-10 * (ratio - 0.5))) / (1 + math.exp(-20 * (orientation - 0.75)))
        below = gx[r, c] + gy[r, c]
        if below > 0:
            ratios.append(above / below)
    assert metrics.qg(*images) == pytest.approx(np.mean(ratios), abs=1e-12)
    assert metrics.qg(*images, profile="vifb") == pytest.approx(sum(ratios) / gf.size, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_mef_ssim(seed: int) -> None:
    images = [smooth(5 * seed + k, (46, 49)) for k in range(3)]
    planes, w, levels = [whole(image) for image in images], window(11, 1.5), []
    for level in range(3):
        if level:
            h, v = planes[0].shape[0] // 2, planes[0].shape[1] // 2
            planes = [
                np.array(
                    [[p[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for c in range(v)] for r in range(h)]
                )
                for p in planes
            ]
        out = []
        for place in places(planes[0].shape, 11):
            centered = [p[place] - np.sum(w * p[place]) for p in planes]
            norms = [math.sqrt(np.sum(w * p * p)) for p in centered]
            if max(norms[:2]) < 1e-4:
                reference = np.zeros_like(centered[0])
            else:
                together = math.sqrt(np.sum(w * (centered[0] + centered[1]) ** 2))
                agreement = min(together / (norms[0] + norms[1]), 1 - 1e-12)
                power = min(math.tan(math.pi / 2 * agreement), 10)
                structure = np.zeros_like(centered[0])
                for p, norm in zip(centered[:2], norms[:2], strict=True):
                    if norm > 1e-4:
                        structure += (norm / max(norms[:2])) ** power * p / norm
                reference = max(norms[:2]) * structure / math.sqrt(np.sum(w * structure**2))
            c = (0.03 * 255) ** 2
            cross = float(np.sum(w * reference * centered[2]))
            out.append((2 * cross + c) / (np.sum(w * reference**2) + norms[2] ** 2 + c))
        levels.append(float(np.mean(out)))
    weights = np.array([0.0448, 0.2856, 0.3001]) / 0.6305
    expected = math.prod(level**weight for level, weight in zip(levels, weights, strict=True))
    assert metrics.mef_ssim(*images) == pytest.approx(expected, abs=1e-6)
    assert metrics.ms_ssim(*images) == metrics.mef_ssim(*images)


@every_triple
def test_fmi(images: Triple) -> None:
    def edge_map(p: Plane) -> Plane:
        padded = np.pad(p, 1, mode="edge")
        h, w = p.shape
        gx, gy = np.zeros_like(p), np.zeros_like(p)
        for r, c in product(range(h), range(w)):
            near = padded[r : r + 3, c : c + 3]
            gx[r, c] = near[0, 2] + 2 * near[1, 2] + near[2, 2] - near[0, 0] - 2 * near[1, 0] - near[2, 0]
            gy[r, c] = near[2, 0] + 2 * near[2, 1] + near[2, 2] - near[0, 0] - 2 * near[0, 1] - near[0, 2]
        power = gx**2 + gy**2
        at = np.pad(power, 1)
        out = np.zeros_like(p)
        for r, c in product(range(h), range(w)):
            here = power[r, c]
            left, right, up, low = at[r + 1, c], at[r + 1, c + 2], at[r, c + 1], at[r + 2, c + 1]
            crest = (abs(gx[r, c]) >= abs(gy[r, c]) and left <= here > right) or (
                abs(gy[r, c]) >= abs(gx[r, c]) and up <= here > low
            )
            out[r, c] = here > 4 * power.mean() and crest
        return out

    def entropy(p: Plane) -> float:
        return -sum(v * math.log2(v) for v in p.ravel().tolist() if v > 0)

    def pair_information(p: Plane, q: Plane) -> float:
        if np.array_equal(p, q):
            return 1.0
        if not p.any() or not q.any():
            return 0.0
        p, q = p.ravel(), q.ravel()
        r = 0.0 if np.ptp(p) == 0 or np.ptp(q) == 0 else float(np.corrcoef(p, q)[0, 1])
        p, q = p / p.sum(), q / q.sum()
        place = np.arange(9)
        sd_p, sd_q = (math.sqrt(max(float(d @ place**2 - (d @ place) ** 2), 0)) for d in (p, q))
        cp, cq = np.cumsum(p), np.cumsum(q)
        bound, apart = np.zeros((9, 9)), np.zeros((9, 9))
        for i, j in product(range(9), range(9)):
            bound[i, j] = min(cp[i], cq[j]) if r >= 0 else max(cp[i] + cq[j] - 1, 0)
            apart[i, j] = cp[i] * cq[j]
        reach = float((bound - apart).sum())
        phi = min(max(r * sd_p * sd_q / reach, 0), 1) if abs(reach) > 1e-12 else 0
        cumulative = np.pad(phi * bound + (1 - phi) * apart, ((1, 0), (1, 0)))
        both = cumulative[1:, 1:] - cumulative[:-1, 1:] - cumulative[1:, :-1] + cumulative[:-1, :-1]
        total = entropy(p) + entropy(q)
        return max(2 * (total - entropy(both)) / total, 0) if total > 0 else 0.0

    x, y, f = (edge_map(whole(image)) for image in images)
    assert f.any()
    expected = np.mean([pair_information(s[place], f[place]) for s in (x, y) for place in places(f.shape, 3)])
    assert metrics.fmi(*images) == pytest.approx(expected, abs=1e-9)


def slow_halved(image: Plane, scale: int) -> Plane:
    """Average under the window of a scale, at every second place."""
    side = 2 ** (4 - scale) + 1
    w = window(side, side / 5)
    h, v = image.shape[0] - side + 1, image.shape[1] - side + 1
    return np.array(
        [[np.sum(w * image[r : r + side, c : c + side]) for c in range(0, v, 2)] for r in range(0, h, 2)]
    )


def slow_fidelity(p: Plane, q: Plane, w: Plane, noise_variance: float) -> tuple[float, float, float]:
    """Return the gain of one window, and the information in the fused image and in the source."""
    vp, vq, c = (covariance(a, b, w) for a, b in ((p, p), (q, q), (p, q)))
    if vp < 1e-10:
        return 0.0, 0.0, 0.0
    g = c / (vp + 1e-10)
    noise = vq - g * c
    if g < 0:
        g, noise = 0.0, vq
    if vq < 1e-10:
        g, noise = 0.0, 0.0
    preserved = math.log(1 + g * g * vp / (max(noise, 1e-10) + noise_variance))
    return g, preserved, math.log(1 + vp / noise_variance)


def test_vif_and_viff_by_windows() -> None:
    images = [smooth(k, (44, 47)) for k in (1, 3, 2)]
    planes = [whole(image) for image in images]
    preserved, available, viff = [0.0, 0.0], [0.0, 0.0], 0.0
    for scale, weight in enumerate((1, 0, 0.15, 1)):
        side = 2 ** (4 - scale) + 1
        w = window(side, side / 5)
        if scale:
            planes = [slow_halved(image, scale) for image in planes]
        x, y, f = planes
        kept = total = 0.0
        for place in places(f.shape, side):
            for i, source in enumerate((x, y)):
                _, seen, there = slow_fidelity(source[place], f[place], w, 2)
                preserved[i] += seen
                available[i] += there
            of_x, of_y = (slow_fidelity(s[place], f[place], w, 0.005 * 255**2) for s in (x, y))
            for chosen in (of_x, of_y) if of_x[0] == of_y[0] else (min(of_x, of_y),):
                share = 0.5 if of_x[0] == of_y[0] else 1
                kept += share * chosen[1]
                total += share * chosen[2]
        viff += weight / 2.15 * kept / total
    vif = preserved[0] / available[0] + preserved[1] / available[1]
    assert metrics.vif(*images) == pytest.approx(vif, abs=1e-9)
    for profile in metrics.PROFILES:
        assert metrics.viff(*images, profile=profile) == pytest.approx(viff, abs=1e-9)
    assert metrics.vif(*images, profile="mefb") == metrics.viff(*images, profile="mefb")


@every_triple
def test_qcv_and_qcb_by_plain_transforms(images: Triple) -> None:
    """Uses the whole spectrum instead of half of it, sums over 31x31 windows, and blocks one by one."""
    x, y, f = (whole(slow_stretch(image)) for image in images)
    h, w = SHAPE

    def radius(divisor: float) -> Plane:
        return np.array(
            [
                [math.hypot(u * h / divisor, v * w / divisor) for v in np.fft.fftfreq(w) * 2]
                for u in np.fft.fftfreq(h) * 2
            ]
        )

    r = 0.144 * radius(8)
    sensitivity = 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
    above = below = 0.0
    for source in (x, y):
        strength, _ = slow_sobel(source)
        seen = np.fft.ifft2(np.fft.fft2(source - f) * sensitivity).real
        for r0, c0 in product(range(0, h, 16), range(0, w, 16)):
            block = slice(r0, r0 + 16), slice(c0, c0 + 16)
            weight = float(np.sum(strength[block] ** 5))
            above += weight * float(np.sum(seen[block] ** 2)) / 256
            below += weight
    assert metrics.qcv(*images) == pytest.approx(above / below, rel=1e-9)

    r = radius(30)
    dog = np.exp(-((r / 15.3870) ** 2)) - 0.7622 * np.exp(-((r / 1.3456) ** 2))
    at = np.arange(31) - 15
    squares = at[:, None] ** 2 + at[None, :] ** 2
    masked = []
    for image in (x, y, f):
        seen = np.pad(np.fft.ifft2(np.fft.fft2(image) * dog).real, 15)
        out = np.zeros(SHAPE)
        for place in places(seen.shape, 31):
            near, wide = (
                float(np.sum(seen[place] * np.exp(-squares / (2 * s**2)) / (2 * math.pi * s**2)))
                for s in (2, 4)
            )
            contrast = abs(near / wide - 1)
            out[place[0].start, place[1].start] = contrast**3 / (contrast**2 + 1e-4)
        masked.append(out)
    cx, cy, cf = masked
    lam = cx**2 / (cx**2 + cy**2)
    q = lam * np.minimum(cx, cf) / np.maximum(cx, cf) + (1 - lam) * np.minimum(cy, cf) / np.maximum(cy, cf)
    assert metrics.qcb(*images) == pytest.approx(q.mean(), abs=1e-9)


def slow_phase(image: Plane, toolbox: bool = False) -> tuple[Plane, Plane, Plane]:
    """Compute phase congruency as Kovesi describes: whole filters, noise from impulse responses, moments by angle.

    `toolbox`: the moments of MEFB's code.
    """
    h, w = image.shape
    spectrum = np.fft.fft2(image)
    xx, yy, xy = (np.zeros((h, w)) for _ in range(3))
    energies, amplitudes = np.zeros((h, w)), np.zeros((h, w))
    for orientation in range(6):
        angle = orientation * math.pi / 6
        filters = []
        for scale in range(4):
            center = 1 / (3 * 2.1**scale)
            gabor = np.zeros((h, w))
            for (r, v), (c, u) in product(enumerate(np.fft.fftfreq(h)), enumerate(np.fft.fftfreq(w))):
                radius = math.hypot(u, v)
                if radius == 0:
                    continue
                theta = math.atan2(-v, u)
                ds = math.sin(theta) * math.cos(angle) - math.cos(theta) * math.sin(angle)
                dc = math.cos(theta) * math.cos(angle) + math.sin(theta) * math.sin(angle)
                away = abs(math.atan2(ds, dc))
                gabor[r, c] = (
                    math.exp(-(math.log(radius / center) ** 2) / (2 * math.log(0.55) ** 2))
                    / (1 + (radius / 0.45) ** 30)
                    * math.exp(-(away**2) / (2 * (math.pi / 6 / 1.2) ** 2))
                )
            filters.append(gabor)
        responses = [np.fft.ifft2(spectrum * gabor) for gabor in filters]
        impulses = [np.fft.ifft2(gabor).real * math.sqrt(h * w) for gabor in filters]
        power = float(np.median(np.abs(responses[0]) ** 2)) / math.log(2) / float(np.sum(filters[0] ** 2))
        squares = sum(float(np.sum(impulse**2)) for impulse in impulses)
        crossed = sum(float(np.sum(impulses[i] * impulses[j])) for j in range(4) for i in range(j))
        tau = math.sqrt((2 * power * squares + 4 * power * crossed) / 2)
        threshold = (tau * math.sqrt(math.pi / 2) + 2 * math.sqrt((2 - math.pi / 2) * tau**2)) / 1.7
        summed = np.sum(responses, axis=0)
        mean = summed / (np.abs(summed) + 1e-4)
        energy = -threshold * np.ones((h, w))
        for response in responses:
            energy += response.real * mean.real + response.imag * mean.imag
            energy -= np.abs(response.real * mean.imag - response.imag * mean.real)
        amplitude = np.sum(np.abs(responses), axis=0)
        width = amplitude / (np.max(np.abs(responses), axis=0) + 1e-4) / 4
        energy = np.maximum(energy, 0) / (1 + np.exp(10 * (0.5 - width)))
        energies, amplitudes = energies + energy, amplitudes + amplitude
        congruency = energy / (amplitude + 1e-4)
        xx += (congruency * math.cos(angle)) ** 2
        yy += (congruency * math.sin(angle)) ** 2
        xy += congruency * math.cos(angle) * congruency * math.sin(angle)
    xx, yy, xy = xx / 3, yy / 3, (1 if toolbox else 4) * xy / 6
    root = np.sqrt(xy**2 + (xx - yy) ** 2) + (1e-4 if toolbox else 0)
    return energies / (amplitudes + 1e-4), (xx + yy + root) / 2, (xx + yy - root) / 2


def test_qp() -> None:
    images = [smooth(k, (24, 27)) for k in range(3)]
    x, y, f = (slow_phase(whole(image)) for image in images)
    w, expected = window(11, 1.5), 1.0
    mask = np.maximum(np.maximum(x[0], y[0]), f[0]) > 0.1
    for of_x, of_y, of_f in zip(x, y, f, strict=True):
        out = []
        for place in places(of_f.shape, 11):
            if not mask[place[0].start + 5, place[1].start + 5]:
                continue
            best = -1.0
            for source in (of_x, of_y, np.maximum(of_x, of_y)):
                p, q = source[place], of_f[place]
                deviations = math.sqrt(covariance(p, p, w) * covariance(q, q, w))
                best = max(best, (covariance(p, q, w) + 1e-4) / (deviations + 1e-4))
            out.append(best)
        expected *= float(np.mean(out))
    assert metrics.qp(*images) == pytest.approx(expected, abs=1e-3)
    assert metrics.qp(*images) < 0.7


def test_qp_of_mefb() -> None:
    images = [smooth(k, (24, 27)) for k in range(3)]
    x, y, f = (slow_phase(whole(image), toolbox=True) for image in images)
    from_x = x[0] > y[0]
    either = [np.where(from_x, of_x, of_y) for of_x, of_y in zip(x, y, strict=True)]
    w, expected = window(11, 1.5), 1.0
    for i in range(3):
        padded_f, out, count = np.pad(f[i], 5), 0.0, 0
        sources = [(np.pad(s[i] * (s[0] > 0.1), 5), s[0] > 0.1) for s in (x, y, either)]
        for r, c in product(range(24), range(27)):
            place = slice(r, r + 11), slice(c, c + 11)
            q, values = padded_f[place], []
            for source, mask in sources:
                p = source[place]
                deviations = math.sqrt(abs(covariance(p, p, w) * covariance(q, q, w)))
                values.append((covariance(p, q, w) + 1e-4) / (deviations + 1e-4) if mask[r, c] else 0.0)
            out += max(values)
            count += bool(sources[2][1][r, c])
        expected *= out / count
    assert metrics.qp(*images, profile="mefb") == pytest.approx(expected, abs=1e-3)
    assert metrics.qp(*images, profile="mefb") < 0.5


@every_triple
def test_differences_and_correlations(images: Triple) -> None:
    x, y, f = (whole(image) for image in images)
    pairs = list(zip(x.ravel().tolist(), y.ravel().tolist(), f.ravel().tolist(), strict=True))
    errors = [sum((p[i] - p[2]) ** 2 for p in pairs) for i in range(2)]
    mean = sum(errors) / 2 / len(pairs)
    assert metrics.psnr(*images) == pytest.approx(10 * math.log10(255**2 / mean), abs=1e-10)
    odd = sum(math.sqrt(error) / len(pairs) for error in errors) / 2
    assert metrics.psnr(*images, profile="vifb") == pytest.approx(
        20 * math.log10(255 / math.sqrt(odd)), abs=1e-10
    )
    assert metrics.psnr(*images, profile="tang") == pytest.approx(10 * math.log10(255**4 / mean), abs=1e-10)
    assert metrics.mse(*images) == pytest.approx(mean / 255**2, abs=1e-12)
    cc = sum(float(np.corrcoef(s.ravel(), f.ravel())[0, 1]) for s in (x, y)) / 2
    assert metrics.cc(*images) == pytest.approx(cc, abs=1e-12)
    scd = sum(float(np.corrcoef((f - b).ravel(), a.ravel())[0, 1]) for a, b in ((x, y), (y, x)))
    assert metrics.scd(*images) == pytest.approx(scd, abs=1e-12)
