"""The universal scalability law, fitted to throughput over the number of cores.

    X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))

lambda is what one core does alone, sigma the share that is done one after the other (contention),
kappa the cost of each pair that must agree (coherence). With kappa > 0 throughput has a peak at
N* = sqrt((1 - sigma) / kappa).

1. N / X is linear in 1 / lambda, sigma / lambda and kappa / lambda: linear least squares do, with
   each point weighted so that relative errors of X count. No coefficient may be negative: every
   subset of the terms is solved, and the best one without a negative coefficient is taken.
2. From six points on, points that lie far off lose weight (Huber, then Tukey's bisquare), so that
   one bad run does not bend the curve. What the rounds of a point scatter by is not far.
3. Intervals (95 %) come from resampling: the rounds of each point, and from four points on the
   residuals too; the wider of both counts. The random numbers are the same in each run.
4. What the points cannot determine is None, and `limits` says why. Two points give one equation
   for sigma and kappa together, three leave nothing over to check the law with.

Rejected: fitting X itself by Newton's method. It needs a first guess, can fail to converge, and
with weights as in 1 the outcome differs only in the second order of the residuals.
"""

import math
import random
import statistics
from dataclasses import dataclass, field

ROBUST_POINTS = 6
RESAMPLES = 400
HUBER = 1.345
TUKEY = 4.685
FAR = 3.0  # a peak beyond this many times the largest N measured is no finding


@dataclass
class Fit:
    points: int
    lam: float | None = None
    sigma: float | None = None
    kappa: float | None = None
    error: float | None = None  # root of the mean squared relative residual
    peak_cores: float | None = None  # where throughput is highest; None: it only grows
    peak: float | None = None
    intervals: dict = field(default_factory=dict)  # name: (low, high)
    outliers: list = field(default_factory=list)  # numbers of cores that lost their weight
    limits: list = field(default_factory=list)  # what cannot be concluded, a sentence each

    @property
    def determined(self):
        return self.sigma is not None

    def at(self, cores):
        return law(cores, self.lam, self.sigma, self.kappa)


def law(cores, lam, sigma, kappa):
    return lam * cores / (1 + sigma * (cores - 1) + kappa * cores * (cores - 1))


def fit(samples):
    """Fits {number of cores: [throughput of each round]}."""
    usable = {cores: [x for x in xs if math.isfinite(x) and x > 0]
              for cores, xs in samples.items() if cores >= 1}
    usable = {cores: xs for cores, xs in sorted(usable.items()) if xs}
    medians = [(cores, statistics.median(xs)) for cores, xs in usable.items()]
    result = Fit(points=len(medians))
    if len(medians) < 3:
        _say_too_few(result, medians)
        return result
    solved = _solve_robustly(medians, _noise(usable))
    result.lam, result.sigma, result.kappa = solved[:3]
    result.outliers = [cores for (cores, _), weight in zip(medians, solved[3]) if weight < 0.1]
    residuals = [result.at(cores) / x - 1 for cores, x in medians]
    result.error = math.sqrt(statistics.fmean(r * r for r in residuals))
    _find_peak(result)
    result.intervals = _intervals(result, usable, medians)
    _say_limits(result, medians)
    return result


# ---- Least squares ----

def _noise(usable):
    """How far the median of a point's rounds is off by chance; at least 0.1 %."""
    errors = [1.2533 * statistics.stdev(xs) / statistics.median(xs) / math.sqrt(len(xs))
              for xs in usable.values() if len(xs) >= 3]
    return max(1e-3, statistics.median(errors) if errors else 0.0)


def _solve_robustly(medians, noise):
    """lambda, sigma, kappa and the weight of each point; `noise` is no reason to lose weight."""
    weights = [1.0] * len(medians)
    if len(medians) < ROBUST_POINTS:
        return *_solve(medians, weights), weights
    for turn in range(30):
        lam, sigma, kappa = _solve(medians, weights)
        residuals = [abs(law(cores, lam, sigma, kappa) / x - 1) for cores, x in medians]
        # the fit takes up a part of the errors: more so, the fewer points there are
        scale = 1.4826 * (1 + 5 / (len(medians) - 3)) * statistics.median(residuals)
        scale = max(scale, noise)
        if turn < 15:
            weights = [min(1.0, HUBER * scale / max(r, 1e-12)) for r in residuals]
        else:
            weights = [max(0.0, 1 - (r / (TUKEY * scale)) ** 2) ** 2 for r in residuals]
        if sum(weight > 0.1 for weight in weights) < 4:
            weights = [1.0] * len(medians)
            break
    return *_solve(medians, weights), weights


def _solve(medians, weights):
    best = None
    for terms in ((0, 1, 2), (0, 1), (0, 2), (0,)):
        coefficients = _least_squares(medians, weights, terms)
        if coefficients is None or coefficients[0] <= 0 or min(coefficients) < 0:
            continue
        if len(terms) == 3:
            best = (0.0, coefficients)
            break  # no subset can be better
        error = _squares(medians, weights, coefficients)
        if best is None or error < best[0]:
            best = (error, coefficients)
    base, contention, coherence = best[1]
    return 1 / base, contention / base, coherence / base


def _columns(cores):
    return 1.0, cores - 1.0, cores * (cores - 1.0)


def _squares(medians, weights, coefficients):
    total = 0.0
    for (cores, x), weight in zip(medians, weights):
        modelled = sum(c * v for c, v in zip(coefficients, _columns(cores)))
        total += weight * (modelled * x / cores - 1) ** 2
    return total


def _least_squares(medians, weights, terms):
    """Coefficients of 1, N - 1 and N (N - 1) in N / X; 0 where not among the terms."""
    size = len(terms)
    largest = _columns(max(cores for cores, _ in medians))
    matrix = [[0.0] * (size + 1) for _ in range(size)]
    for (cores, x), weight in zip(medians, weights):
        # a row of relative errors: each column times X / N, which the right side makes 1
        row = [_columns(cores)[t] / max(largest[t], 1.0) * x / cores for t in terms]
        for i in range(size):
            for j in range(size):
                matrix[i][j] += weight * row[i] * row[j]
            matrix[i][size] += weight * row[i]
    solution = _eliminate(matrix)
    if solution is None:
        return None
    coefficients = [0.0, 0.0, 0.0]
    for term, value in zip(terms, solution):
        coefficients[term] = value / max(largest[term], 1.0)
    return coefficients


def _eliminate(matrix):
    """Gauss with pivots; None when the rows depend on each other."""
    size = len(matrix)
    scale = max(abs(value) for row in matrix for value in row[:-1])
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        if abs(matrix[pivot][column]) <= 1e-13 * scale:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[column])]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def _peak_cores(sigma, kappa):
    return math.sqrt((1 - sigma) / kappa) if kappa > 0 and sigma < 1 else None


def _find_peak(result):
    result.peak_cores = _peak_cores(result.sigma, result.kappa)
    if result.peak_cores is not None:
        result.peak_cores = max(1.0, result.peak_cores)
        result.peak = result.at(result.peak_cores)


# ---- How sure ----

def _intervals(result, usable, medians):
    generator = random.Random(20261123)
    usable = {cores: xs for cores, xs in usable.items() if cores not in result.outliers}
    medians = [(cores, x) for cores, x in medians if cores in usable]
    kinds = []
    if min(len(xs) for xs in usable.values()) >= 3:
        kinds.append(lambda: [(cores, statistics.median(generator.choices(xs, k=len(xs))))
                              for cores, xs in usable.items()])
    freedom = len(medians) - 3
    if freedom > 0:
        # a fit takes up a part of the errors: what is left is made as large as they were
        grow = math.sqrt(len(medians) / freedom)
        ratios = [1 + grow * (x / result.at(cores) - 1) for cores, x in medians]
        kinds.append(lambda: [(cores, max(1e-9, generator.choice(ratios)) * result.at(cores))
                              for cores, _ in medians])
    found = {}
    for resample in kinds:
        draws = [_solve(resample(), [1.0] * len(medians)) for _ in range(RESAMPLES)]
        for index, name in enumerate(("lam", "sigma", "kappa")):
            values = sorted(draw[index] for draw in draws)
            low, high = values[RESAMPLES // 40], values[-1 - RESAMPLES // 40]
            if name in found:
                low, high = min(low, found[name][0]), max(high, found[name][1])
            found[name] = (low, high)
    return found


def _say_too_few(result, medians):
    if not medians:
        result.limits.append("No point can be used: nothing can be concluded.")
        return
    count = f"{len(medians)} point{'s' if len(medians) > 1 else ''}, 3 parameters"
    result.limits.append(f"{count}: the law is under-determined, no curve is drawn.")
    if medians[0][0] == 1:
        result.lam = medians[0][1]
    if len(medians) == 1:
        result.limits.append("Nothing can be concluded about contention (sigma), coherence (kappa) "
                             "or a peak.")
        return
    (few, x_few), (many, x_many) = medians
    if few == 1:
        joint = (many * x_few / x_many - 1) / (many - 1)
        result.limits.append(
            f"What these two points say is sigma + {many} kappa = {joint:.4g}"
            f"{' (better than linear)' if joint < 0 else ''}; how much of it is contention and how "
            "much coherence, and so where a peak lies, cannot be concluded.")
    else:
        result.limits.append(
            f"From {few} to {many} cores throughput grows by x{x_many / x_few:.3f} (linear: "
            f"x{many / few:.3f}); contention and coherence cannot be told apart.")


def _say_limits(result, medians):
    largest = medians[-1][0]
    if len(medians) == 3:
        result.limits.append("3 points, 3 parameters: the curve must pass through all of them; "
                             "nothing is left over to check the law or to tell it from noise.")
    elif len(medians) < ROBUST_POINTS:
        result.limits.append(f"{len(medians)} points, 3 parameters: only {len(medians) - 3} to "
                             "check the law with; take the parameters as a hint.")
    if medians[0][0] > 1:
        result.limits.append(f"No point at 1 core: lambda is extrapolated from {medians[0][0]}.")
    if result.outliers:
        result.limits.append("Left out as far off the curve: the point" +
                             ("s" if len(result.outliers) > 1 else "") + " at " +
                             ", ".join(map(str, result.outliers)) + " cores.")
    free = _least_squares(medians, [1.0] * len(medians), (0, 1, 2))
    if free is not None and free[0] > 0 and free[1] / free[0] < -0.005:
        result.limits.append("Better than linear somewhere: without the bound sigma would be "
                             f"{free[1] / free[0]:.3f}, which the law has no meaning for (the "
                             "smallest run is slow, or caches grow with the cores).")
    low, high = result.intervals.get("kappa", (0.0, math.inf))
    if result.kappa > 0 and (low <= 0 or not math.isfinite(high)):
        result.limits.append("kappa may as well be 0: that there is a peak at all is not shown.")
    elif result.kappa == 0:
        result.limits.append("kappa is 0: no peak shows within what was measured.")
    if result.peak_cores is not None and result.peak_cores > FAR * largest:
        result.limits.append(f"The peak lies at {result.peak_cores / largest:.0f} times the "
                             f"largest number of cores measured ({largest}): an extrapolation.")
    if result.error > 0.1:
        result.limits.append(f"The law misses the points by {100 * result.error:.0f} % (root mean "
                             "square): it does not describe them.")
