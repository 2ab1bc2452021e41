"""The physics of the example: quantities that nature or arithmetic fixes, and bytes that the seed fixes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from iceprod_p2p.modules.checksum import file_digest
from iceprod_p2p.modules.protocol import Result

Physics = Callable[..., Result]


def load(path: Path):
    import numpy as np

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_air_showers_conserve_energy_and_have_positive_weights(physics, tmp_path):
    result = physics(tmp_path, "cosmic_rays.py", "GenerateCosmicRays", seed=3, showers=12)
    statistics = result.statistics
    assert statistics["generated"] == 12 and 0 < statistics["events"] <= 12
    # Final states include the nucleon of the target, a part in ten thousand or less.
    assert statistics["energy_balance"] == pytest.approx(1.0, abs=1e-3)
    assert statistics["mean_multiplicity"] > 20
    assert statistics["output_bytes"] == (tmp_path / "cosmic_rays.npz").stat().st_size
    table = load(tmp_path / "cosmic_rays.npz")
    assert (table["weight"] > 0).all() and (table["energy"] >= 1e4).all() and (table["energy"] <= 1e8).all()
    assert len(table["energy"]) == statistics["events"]
    assert len(table["particle_event"]) == statistics["muons"]
    # No muon carries more than its primary, and together they carry less.
    import numpy as np

    carried = np.bincount(table["particle_event"], table["particle_energy"])
    assert (carried < table["energy"]).all()
    assert np.allclose((table["particle_direction"] ** 2).sum(axis=1), 1.0)
    assert (table["particle_direction"][:, 2] < 0).all(), "muons of showers come from above"


def test_neutrinos_share_their_energy_and_come_from_below(physics, sample):
    import numpy as np

    table = load(sample / "neutrinos.npz")
    shared = np.bincount(table["particle_event"], table["particle_energy"])
    assert np.allclose(shared, table["energy"])
    assert (table["weight"] > 0).all() and (np.abs(table["primary"]) == 14).all()
    assert (table["particle_direction"][:, 2] > 0).all()


def test_the_rate_of_atmospheric_neutrinos_does_not_depend_on_how_they_were_drawn(physics, tmp_path):
    rates = []
    for number, index in enumerate((1.5, 2.5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = physics(folder, "neutrinos.py", "GenerateNeutrinos", seed=1, neutrinos=4000, index=index)
        rates.append(result.statistics["weight_sum_hz"])
    assert rates[0] == pytest.approx(rates[1], rel=0.25)
    # Interactions in some 0.17 km^3 of ice: thousands to tens of thousands a year.
    assert 1e-4 < rates[0] < 1e-2


def test_combining_keeps_every_event_and_particle_with_its_own(sample):
    parts = [load(sample / "cosmic_rays.npz"), load(sample / "neutrinos.npz")]
    joined = load(sample / "combined.npz")
    assert len(joined["energy"]) == sum(len(part["energy"]) for part in parts)
    first = len(parts[0]["energy"])
    own = joined["particle_event"] >= first
    assert (joined["sample"][joined["particle_event"][own]] == 1).all()
    assert (joined["particle_event"][own] - first == parts[1]["particle_event"]).all()
    assert joined["weight"].sum() == pytest.approx(sum(part["weight"].sum() for part in parts))


@pytest.fixture
def light(physics, sample, tmp_path):
    def propagate(name: str, **parameters):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(sample / "combined.npz", folder)
        return physics(
            folder, "photons.py", "PropagatePhotons", seed=7, photons_max=200, **parameters
        ), folder

    return propagate


def test_fewer_photons_arrive_and_they_go_less_far_where_ice_absorbs_more(light):
    clear, _ = light("clear", absorption=2.0)
    usual, _ = light("usual")
    murky, _ = light("murky", absorption=0.25)
    detected = [run.statistics["photons_detected"] for run in (clear, usual, murky)]
    paths = [run.statistics["mean_path_m"] for run in (clear, usual, murky)]
    assert detected[0] > detected[1] > detected[2] > 0
    assert paths[0] > 1.5 * paths[1] > 3 * paths[2] > 0


def test_hits_are_on_sensors_after_the_light_was_emitted_and_no_more_than_photons(light):
    result, folder = light("usual")
    table = load(folder / "photons.npz")
    assert 0 < len(table["hit_event"]) == result.statistics["photons_detected"] < result.statistics["photons"]
    assert (table["hit_sensor"] >= 0).all() and (table["hit_sensor"] < 570).all()
    assert (table["hit_time"] > 0).all() and (table["hit_weight"] >= 1).all()
    assert (table["hit_event"] < len(table["energy"])).all()


def test_more_noise_gives_more_pulses_and_a_higher_threshold_fewer_triggers(physics, light):
    _, folder = light("usual")
    run = {}
    for name, change in {
        "usual": {},
        "noisy": {"noise": 3000.0},
        "dark": {"efficiency": 0.0, "noise": 0.0},
        "strict": {"multiplicity": 20},
        "easy": {"multiplicity": 3},
    }.items():
        statistics = physics(folder, "detector.py", "SimulateDetector", seed=7, **change).statistics
        run[name] = statistics
    assert run["noisy"]["noise_pulses"] > 2 * run["usual"]["noise_pulses"] > 0
    assert run["dark"]["pulses"] == run["dark"]["triggered"] == 0
    assert run["easy"]["triggered"] > run["strict"]["triggered"]
    assert (
        run["easy"]["trigger_rate_hz"] >= run["usual"]["trigger_rate_hz"] >= run["strict"]["trigger_rate_hz"]
    )
    assert run["usual"]["triggered"] <= run["usual"]["events"]


def test_merging_keeps_what_either_variant_triggered_on_and_refuses_other_events(physics, light, tmp_path):
    _, folder = light("usual")
    for name, multiplicity in {"a": 8, "b": 4}.items():
        parameters = {"stream": f"detector_{name}", "outfile": f"{name}.npz", "multiplicity": multiplicity}
        physics(folder, "detector.py", "SimulateDetector", seed=7, **parameters)
    variants = {"infiles": ["a.npz", "b.npz"], "variants": ["a", "b"]}
    result = physics(folder, "merge.py", "MergeVariants", **variants)
    table = load(folder / "merged.npz")
    assert result.statistics["events"] == len(table["energy"])
    assert (table["triggered_a"] | table["triggered_b"]).all()
    assert result.statistics["triggered_a"] == table["triggered_a"].sum()
    assert result.statistics["triggered_all"] == (table["triggered_a"] & table["triggered_b"]).sum()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(physics, tmp_path):
    digests = []
    for number, seed in enumerate((11, 11, 12)):
        folder = tmp_path / str(number)
        folder.mkdir()
        physics(folder, "cosmic_rays.py", "GenerateCosmicRays", seed=seed, showers=8)
        physics(folder, "neutrinos.py", "GenerateNeutrinos", seed=seed, neutrinos=5)
        infiles = ["cosmic_rays.npz", "neutrinos.npz"]
        physics(folder, "combine.py", "CombineSamples", infiles=infiles)
        physics(folder, "photons.py", "PropagatePhotons", seed=seed, photons_max=50)
        physics(folder, "detector.py", "SimulateDetector", seed=seed)
        digests.append({path.name: file_digest(path) for path in sorted(folder.iterdir())})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 5
    assert all(digests[0][name] != digests[2][name] for name in digests[0])


def test_a_generator_with_nothing_to_generate_is_told_so(physics, tmp_path):
    with pytest.raises(AssertionError, match="nothing to generate"):
        physics(tmp_path, "neutrinos.py", "GenerateNeutrinos", seed=1, neutrinos=0)
