"""Evaluates a finished run: likelihood beside baselines, held-out tags, samples, latent space.

Results are one flat dictionary by name, likelihoods in nats per example; a value that cannot be
computed for a run is None or absent.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxvae.data.dataset import fingerprint_rows, known_generator
from jaxvae.data.encoding import to_multi_hot
from jaxvae.data.splits import subsample
from jaxvae.evaluation import latents, retrieval, split_metrics
from jaxvae.evaluation.baseline_fitting import Baselines, load_or_fit_baselines
from jaxvae.evaluation.baselines import Independent
from jaxvae.evaluation.disentanglement import disentanglement
from jaxvae.evaluation.saved_evaluation import question
from jaxvae.evaluation.sets import sample_quality
from jaxvae.evaluation.streaming_metrics import ACTIVE_KL, ACTIVE_VARIANCE
from jaxvae.evaluation.training_course import training_course
from jaxvae.inference import completion, likelihood, queries
from jaxvae.inference.run import Run
from jaxvae.inference.sampling import DECODES
from jaxvae.models.trained import TrainedModel
from jaxvae.storage import run_files

NUM_SAMPLES = 5000
NUM_DRAWS = 1000
"""Importance samples a row, unless others are asked for."""
_TRAIN_ROWS = 100_000
_ROWS = 10_000
_MOST_VALUES = 2**26
_LEAST_ROWS = 1000


def evaluate_run(
    run: Run,
    *,
    split: str,
    num_importance_samples: int = NUM_DRAWS,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Evaluates a run on a split.

    Large splits are subsampled; see `with_rows_enough`.

    Args:
      run: the run, with its rows.
      split: "train", "val" or "test".
      num_importance_samples: importance samples per row for the likelihood.
      seed: seed of every draw.
      say: callback for progress messages.

    Returns:
      Values by name; `nll_iw` is the importance-weighted bound as a negative log-likelihood,
      `nll_iw_stderr` its Monte-Carlo standard error, `nll_iw_rows_stderr` its standard error from
      the choice of rows, `gain/x` the model's advantage over baseline x on the same rows.
    """
    rows_in_split = len(run.kept.positions(split))
    run = with_rows_enough(run)
    sets, train, val = (run.sets(name) for name in (split, "train", "val"))
    baselines = load_or_fit_baselines(
        run.folder / run_files.BASELINES, train, val, key=baselines_key(run), say=say
    )
    rows = run.rows(split)
    say(f"judging {len(rows):,} {split} rows with {num_importance_samples:,} draws each")
    estimates = run.row_likelihood(rows, num_importance_samples, seed)
    mean, _ = queries.posterior(run.network, rows)
    train_rows = some_training_rows(run)
    train_mean, train_logvar = queries.posterior(run.network, train_rows)
    return {
        **question(run, split=split, num_importance_samples=num_importance_samples, seed=seed),
        "rows": len(rows),
        "rows_in_split": rows_in_split,
        "kld_weight": run.config.get("loss", {}).get("kld_weight"),
        **training_course(run, split),
        **_likelihood(estimates),
        **_latent(run.network, estimates, mean, train_mean, train_logvar, seed),
        **_among_baselines(run, split, sets, estimates, baselines, seed),
        **_reconstruction(run, sets, val, mean),
        **_ranking(run, sets, baselines, train_mean, train_logvar, seed),
        **_samples(run, sets, train, baselines.independent, seed),
        **_disentanglement(run, seed),
    }


def baselines_key(run: Run) -> str:
    """Returns what baselines of a run depend on: its training and validation rows."""
    return " ".join(fingerprint_rows(run.rows(name), run.taxonomy) for name in ("train", "val"))


def with_rows_enough(run: Run) -> Run:
    """Returns the run with large splits subsampled to the rows that an evaluation needs.

    More rows would make standard errors needlessly small, and dense sets would fill the memory.
    """
    limit = _MOST_VALUES // run.network.num_tags
    return run.with_rows_at_most(
        train=max(_LEAST_ROWS, min(_TRAIN_ROWS, limit)), others=max(_LEAST_ROWS, min(_ROWS, limit))
    )


def _likelihood(found: likelihood.RowLikelihood) -> dict[str, Any]:
    count = len(found.log_likelihood)
    rate, distortion = float(found.rate.mean()), float(found.distortion.mean())
    return {
        "nll_iw": float(-found.log_likelihood.mean()),
        "nll_iw_stderr": float(np.sqrt(found.variance.sum()) / count),
        "nll_iw_rows_stderr": _stderr(found.log_likelihood),
        "elbo": -(rate + distortion),
        "rate": rate,
        "distortion": distortion,
    }


def _latent(network, found, mean, train_mean, train_logvar, seed) -> dict[str, Any]:
    kl = found.kl_per_dimension.mean(axis=0)
    information = split_metrics.aggregate_mutual_information(train_mean, train_logvar)
    train_rate = _rate(network, train_mean, train_logvar, seed)
    variance = mean.var(axis=0, ddof=1) if len(mean) > 1 else np.zeros_like(kl)
    return {
        "active_units": int((kl > ACTIVE_KL).sum()),
        "active_units_by_variance": int((variance > ACTIVE_VARIANCE).sum()),
        "latent_dim": len(kl),
        "information": information,
        "information_most": float(np.log(len(train_mean))),
        "aggregate_kl": train_rate - information,
        "collapsed": bool(information < split_metrics.COLLAPSE_NATS),
        "kl_per_dimension": kl.tolist(),
    }


def _among_baselines(run, split, sets, found, baselines: Baselines, seed) -> dict[str, Any]:
    """Negative log-likelihoods, also conditional on non-empty sets, and paired differences."""
    log_empty = likelihood.log_prob_empty(run.network, seed=seed)
    values: dict[str, Any] = {
        "log_prob_empty": log_empty,
        "nll_iw_nonempty": float(-found.log_likelihood.mean()) + _log_rest(log_empty),
    }
    nothing = np.zeros((1, sets.shape[1]), bool)
    likelihoods = {
        name: (model.log_likelihood(sets), float(model.log_likelihood(nothing)[0]))
        for name, model in baselines.each().items()
    }
    corpus = _corpus_of(run)
    if corpus is not None:
        rows = run.rows(split)
        empty = np.full((1, 1), run.network.num_tags)
        likelihoods["generator"] = (
            corpus.log_likelihood(rows),
            float(corpus.log_likelihood(empty)[0]),
        )
        values["baseline/generator_given_allowed"] = float(
            -corpus.log_likelihood_given_allowed(rows).mean()
        )
    for name, (log_p, empty_log_p) in likelihoods.items():
        difference = found.log_likelihood - log_p
        values[f"baseline/{name}"] = float(-log_p.mean())
        values[f"baseline/{name}_nonempty"] = float(-log_p.mean()) + _log_rest(empty_log_p)
        values[f"gain/{name}"] = float(difference.mean())
        values[f"gain/{name}_stderr"] = _stderr(difference)
    return values | {f"baseline_facts/{name}": fact for name, fact in baselines.facts.items()}


def _reconstruction(run, sets, val, mean) -> dict[str, Any]:
    probabilities = queries.probabilities(run.network, mean)
    on_val = queries.probabilities(run.network, run.encode(val)) if len(val) else probabilities
    best = retrieval.best_threshold(on_val, val if len(val) else sets)
    columns = dict(run.taxonomy.concepts)
    values: dict[str, Any] = {}
    for name, threshold in {"at_half": 0.5, "at_best": best}.items():
        scores = retrieval.reconstruction_scores(probabilities, sets, threshold=threshold)
        values |= {f"reconstruction_{name}/{key}": value for key, value in scores.items()}
    values["mean_average_precision"] = retrieval.mean_average_precision(probabilities, sets)
    for concept, bounds in columns.items():
        span = slice(bounds.start, bounds.stop)
        if sets[:, span].any():
            values[f"mean_average_precision/{concept}"] = retrieval.mean_average_precision(
                probabilities[:, span], sets[:, span]
            )
    return values


def _ranking(run, sets, baselines: Baselines, train_mean, train_logvar, seed) -> dict[str, Any]:
    predictors = {
        "model": lambda observed: completion.predict(
            run.network, observed, train_mean, train_logvar, seed=seed
        ),
        "popularity": baselines.independent.predict,
        "mixture": baselines.mixture.predict,
    }
    concepts = dict(run.taxonomy.concepts)
    recalls = retrieval.compare_recall(predictors, sets, concepts, seed=seed)
    return {
        f"held_out_tags/{name}/{key}": value
        for name, values in recalls.items()
        for key, value in values.items()
    }


def _samples(run, sets, train, independent: Independent, seed) -> dict[str, Any]:
    samples = run.sample_sets(NUM_SAMPLES, seed=seed)
    compared = sample_quality.compare_samples(
        samples.multi_hot,
        sets,
        train,
        independent.sample(NUM_SAMPLES, seed=seed),
        tags=run.taxonomy.spellings,
        seed=seed,
    )
    values = {
        f"{name}/{key}": value
        for name, measures in compared.items()
        for key, value in measures.items()
    }
    return values | {"samples/empty_fraction_before_redraw": samples.empty_fraction}


def compare_decodes(run: Run, judged: dict[str, Any]) -> dict[str, dict]:
    """Compares sample quality under every way of decoding, on the evaluated split."""
    seed, split = judged["seed"], judged["split"]
    sets_by_decode = {
        decode: run.sample_sets(NUM_SAMPLES, decode=decode, seed=seed).multi_hot
        for decode in DECODES
        if decode != "bernoulli"
    }
    compared = sample_quality.compare_sets(
        sets_by_decode, run.sets(split), run.sets("train"), tags=run.taxonomy.spellings, seed=seed
    )
    bernoulli = {
        name.removeprefix("samples/"): value
        for name, value in judged.items()
        if name.startswith("samples/")
    }
    return {"bernoulli": bernoulli, **compared}


def _disentanglement(run: Run, seed: int) -> dict[str, Any]:
    corpus = _corpus_of(run)
    if corpus is None:
        return {}
    names = ("train", "val", "test")
    source_rows = np.concatenate([run.source_row(name) for name in names])
    corpus_factors = corpus.draw(int(source_rows.max()) + 1, seed=0).factors
    codes = np.concatenate([run.encode(run.sets(name)) for name in names])
    factors = {name: values[source_rows] for name, values in corpus_factors.items()}
    scores = disentanglement(codes, factors, seed=seed)
    return {f"disentanglement/{name}": value for name, value in scores.items()}


def name_dimensions(run: Run) -> list[dict]:
    """Describes the latent dimensions in tags, over at most 5,000 training rows."""
    rows = some_training_rows(run)
    mean, logvar = queries.posterior(run.network, rows)
    kl = queries.kl_per_dimension(run.network, mean, logvar).mean(axis=0)
    return latents.name_dimensions(
        run.network,
        mean,
        to_multi_hot(rows, run.network.num_tags),
        kl,
        tags=run.taxonomy.spellings,
        concepts=dict(run.taxonomy.concepts),
    )


def some_training_rows(run: Run) -> np.ndarray:
    """Returns at most 5,000 of a run's training rows, `[N, K]`, from all over them."""
    rows = run.rows("train")
    return rows[subsample(len(rows), split_metrics.INFORMATION_ROWS)]


def _corpus_of(run: Run):
    return known_generator(run.config.get("data", {}).get("dataset_name", ""), run.taxonomy)


def _rate(network: TrainedModel, mean: np.ndarray, logvar: np.ndarray, seed: int) -> float:
    """Mean KL(q(z|x) || p(z)), by one draw per row if it has no closed form."""
    if network.model.has_exact_rate:
        return float(queries.kl_per_dimension(network, mean, logvar).sum(axis=1).mean())
    noise = np.random.default_rng(seed).standard_normal(mean.shape)
    z = mean + np.exp(0.5 * logvar) * noise
    log_q = -0.5 * (np.square(noise) + logvar + np.log(2.0 * np.pi)).sum(axis=1)
    return float((log_q - queries.log_prior(network, z)).mean())


def _log_rest(log_empty: float) -> float:
    """Returns log(1 - p(empty)), to be subtracted from a log-likelihood given a non-empty set."""
    return float(np.log1p(-np.exp(min(log_empty, -1e-12))))


def _stderr(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
