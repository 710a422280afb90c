"""Which configs a sweep trains: each run its own seed, each weight every seed."""

from jaxvae.config import parsing
from jaxvae.sweeps import rate_distortion, seeds
from jaxvae.sweeps.member_loop import Member
from tests.conftest import ROOT


class Trials:
    """Stands for a trial runner: keeps the configs it is given and trains none of them."""

    def __init__(self):
        self.configs = {}

    def member(self, name, config):
        self.configs[name] = config
        return Member(name=name, shape=(), fresh=None, hyperparams=None, plan=None)

    def train(self, ask, watch, requests):
        while member := ask():
            member.progress.nonfinite_step = 1  # as failed, nothing is written of it
            watch.end(member, {})


def config_of(seed):
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.seed = seed
    return config


def test_each_run_of_seeds_has_its_own(tmp_path):
    trials, ended = Trials(), []
    seeds.train_seeds(trials, config_of(5), tmp_path, num=3, overrides={}, requests=None,
                      ended=lambda seed, member: ended.append(seed))  # fmt: skip
    assert {name: config.seed for name, config in trials.configs.items()} == {5: 5, 6: 6, 7: 7}
    assert ended == [5, 6, 7]


def test_each_weight_of_a_frontier_is_trained_with_every_seed():
    trials, ended = Trials(), []
    points = rate_distortion.train_rate_distortion(
        trials, config_of(5), weights=[0.5, 2.0], num_seeds=2, requests=None,
        ended=lambda weight, seed, member: ended.append((weight, seed)),
    )  # fmt: skip
    assert points == []
    expected = [(0.5, 5), (0.5, 6), (2.0, 5), (2.0, 6)]
    assert ended == list(trials.configs) == expected
    found = [(config.loss.kld_weight, config.seed) for config in trials.configs.values()]
    assert found == expected
