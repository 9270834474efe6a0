"""The fit of the universal scalability law, on data whose parameters are known."""

import math
import random
import statistics

import pytest
from helper import usl

CORES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
KNOWN = [(1e6, 0.05, 0.001), (2e5, 0.0, 0.0), (3e7, 0.2, 0.0), (1.0, 0.0, 0.0005),
         (123.0, 0.5, 0.01), (1e9, 0.001, 1e-6)]


def synthetic(known, cores=CORES, rounds=1, noise=0.0, seed=1):
    generator = random.Random(seed)
    return {n: [usl.law(n, *known) * (1 + generator.gauss(0, noise)) for _ in range(rounds)]
            for n in cores}


def text(fit):
    return " ".join(fit.limits)


@pytest.mark.parametrize("known", KNOWN)
def test_exact_points_give_the_parameters_back(known):
    fit = usl.fit(synthetic(known))
    assert fit.determined and fit.points == len(CORES)
    assert fit.lam == pytest.approx(known[0], rel=1e-6)
    assert fit.sigma == pytest.approx(known[1], rel=1e-6, abs=1e-9)
    assert fit.kappa == pytest.approx(known[2], rel=1e-6, abs=1e-9)
    assert fit.error < 1e-6


@pytest.mark.parametrize("known", KNOWN[:4])
@pytest.mark.parametrize("seed", range(5))
def test_noisy_points_come_close_and_lie_in_the_intervals(known, seed):
    fit = usl.fit(synthetic(known, rounds=5, noise=0.02, seed=seed))
    assert fit.lam == pytest.approx(known[0], rel=0.03)
    assert fit.sigma == pytest.approx(known[1], abs=0.02)
    assert fit.kappa == pytest.approx(known[2], abs=3e-4)
    assert 0.0005 < fit.error < 0.03
    for name, truth in zip(("lam", "sigma", "kappa"), known):
        low, high = fit.intervals[name]
        assert low <= getattr(fit, name) * 1.001 + 1e-12 and high >= getattr(fit, name) * 0.999
        assert low - 0.03 * abs(truth) - 1e-3 <= truth <= high + 0.03 * abs(truth) + 1e-3


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    known = KNOWN[0]
    hits = {"lam": 0, "sigma": 0, "kappa": 0}
    for seed in range(30):
        fit = usl.fit(synthetic(known, rounds=5, noise=0.02, seed=100 + seed))
        for name, truth in zip(hits, known):
            low, high = fit.intervals[name]
            hits[name] += low <= truth <= high
    assert min(hits.values()) >= 25


def test_intervals_grow_with_the_noise():
    widths = []
    for noise in (0.005, 0.05):
        low, high = usl.fit(synthetic(KNOWN[0], rounds=5, noise=noise)).intervals["sigma"]
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_the_same_points_give_the_same_intervals():
    samples = synthetic(KNOWN[0], rounds=5, noise=0.02)
    assert usl.fit(samples).intervals == usl.fit(samples).intervals


def test_peak_is_where_throughput_is_highest():
    lam, sigma, kappa = KNOWN[0]
    fit = usl.fit(synthetic(KNOWN[0]))
    assert fit.peak_cores == pytest.approx(math.sqrt((1 - sigma) / kappa))
    best = max(range(1, 200), key=lambda n: usl.law(n, lam, sigma, kappa))
    assert abs(best - fit.peak_cores) < 1
    assert fit.peak >= max(usl.law(n, lam, sigma, kappa) for n in range(1, 200))


def test_without_coherence_there_is_no_peak():
    fit = usl.fit(synthetic((1e6, 0.1, 0.0)))
    assert fit.kappa == pytest.approx(0, abs=1e-9)
    assert fit.peak_cores is None or fit.peak_cores > 1000


def test_with_a_peak_far_out_it_is_called_an_extrapolation():
    fit = usl.fit(synthetic((1e6, 0.0, 1e-5), cores=(1, 2, 3, 4, 5, 6, 7, 8)))
    assert fit.peak_cores > 100
    assert "extrapolation" in text(fit)


def test_one_point_far_off_does_not_bend_the_curve():
    samples = synthetic(KNOWN[0], rounds=5, noise=0.005)
    samples[12] = [x / 2 for x in samples[12]]
    fit = usl.fit(samples)
    assert fit.outliers == [12]
    assert fit.sigma == pytest.approx(0.05, abs=0.01)
    assert fit.kappa == pytest.approx(0.001, rel=0.1)
    assert "12 cores" in text(fit)


def test_small_noise_makes_no_outliers():
    for seed in range(10):
        assert len(usl.fit(synthetic(KNOWN[0], rounds=5, noise=0.01, seed=seed)).outliers) <= 1


def test_a_bad_round_does_not_move_the_median():
    samples = synthetic(KNOWN[0], rounds=5, noise=0.001)
    for xs in samples.values():
        xs[0] /= 10
    fit = usl.fit(samples)
    assert fit.lam == pytest.approx(1e6, rel=0.01) and fit.sigma == pytest.approx(0.05, abs=0.005)


def test_base_above_one_core_is_extrapolated_and_says_so():
    fit = usl.fit(synthetic(KNOWN[0], cores=CORES[1:]))
    assert fit.lam == pytest.approx(1e6)
    assert "No point at 1 core" in text(fit)


def test_no_point_concludes_nothing():
    for samples in ({}, {4: []}, {2: [0.0]}, {2: [math.nan, math.inf, -1.0]}, {0: [5.0]}):
        fit = usl.fit(samples)
        assert not fit.determined and fit.lam is None and fit.points == 0
        assert "nothing can be concluded" in text(fit).lower()


def test_one_point_gives_lambda_alone():
    fit = usl.fit({1: [10.0, 12.0, 11.0]})
    assert fit.lam == 11 and not fit.determined and fit.peak_cores is None
    assert "1 point, 3 parameters" in text(fit)
    assert usl.fit({4: [10.0]}).lam is None


def test_two_points_say_what_they_say_and_no_more():
    known = (100.0, 0.1, 0.02)
    fit = usl.fit(synthetic(known, cores=(1, 2)))
    assert not fit.determined and fit.intervals == {} and fit.lam == 100
    assert "2 points, 3 parameters" in text(fit)
    assert "sigma + 2 kappa = 0.14;" in text(fit)
    fit = usl.fit(synthetic(known, cores=(1, 4)))
    assert "sigma + 4 kappa = 0.18;" in text(fit)
    fit = usl.fit({1: [100.0], 2: [210.0]})
    assert "better than linear" in text(fit)


def test_two_points_above_one_core_cannot_be_told_apart():
    fit = usl.fit({2: [100.0], 4: [150.0]})
    assert fit.lam is None and "x1.500" in text(fit) and "(linear: x2.000)" in text(fit)


def test_three_points_are_met_and_called_unchecked():
    fit = usl.fit(synthetic(KNOWN[0], cores=(1, 2, 4)))
    assert fit.determined and fit.error < 1e-9
    assert "3 points, 3 parameters" in text(fit) and "nothing is left over" in text(fit)
    assert fit.intervals == {}
    assert "kappa may as well be 0" in text(fit)


def test_four_points_have_one_to_check_with():
    fit = usl.fit(synthetic(KNOWN[0], cores=(1, 2, 4, 8)))
    assert "only 1 to check" in text(fit)
    assert "check" not in text(usl.fit(synthetic(KNOWN[0])))


def test_rounds_alone_give_intervals_to_three_points():
    fit = usl.fit(synthetic(KNOWN[0], cores=(1, 2, 4), rounds=5, noise=0.02))
    assert set(fit.intervals) == {"lam", "sigma", "kappa"}


def test_better_than_linear_is_bounded_and_named():
    fit = usl.fit({n: [100.0 * n * (1 + 0.05 * (n - 1))] for n in range(1, 9)})
    assert fit.sigma == 0 and fit.kappa >= 0
    assert "Better than linear" in text(fit)


def test_parameters_are_never_negative():
    generator = random.Random(5)
    for _ in range(40):
        samples = {n: [n * generator.uniform(0.2, 2)] for n in CORES[:generator.randint(3, 12)]}
        fit = usl.fit(samples)
        assert fit.lam > 0 and fit.sigma >= 0 and fit.kappa >= 0
        assert all(math.isfinite(fit.at(n)) and fit.at(n) > 0 for n in CORES)


def test_what_the_law_does_not_describe_is_called_so():
    fit = usl.fit({n: [100.0 if n % 3 else 400.0] for n in range(1, 10)})
    assert "does not describe" in text(fit)


def test_equal_throughput_everywhere_is_pure_contention():
    fit = usl.fit({n: [500.0] for n in CORES})
    assert fit.lam == pytest.approx(500) and fit.sigma == pytest.approx(1)
    assert fit.kappa == pytest.approx(0, abs=1e-9)


def test_extreme_sizes_stay_exact():
    cores = (1, 16, 128, 512, 1024)
    fit = usl.fit(synthetic((1e7, 1e-4, 1e-7), cores=cores))
    assert fit.sigma == pytest.approx(1e-4, rel=1e-4)
    assert fit.kappa == pytest.approx(1e-7, rel=1e-4)


def test_law_at_one_core_is_lambda():
    assert usl.law(1, 7.0, 0.3, 0.2) == 7.0
    assert statistics.fmean([usl.law(2, 1.0, 0.0, 0.0)]) == 2.0
