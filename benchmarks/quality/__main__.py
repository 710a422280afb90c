"""How good recipes are: `python -m benchmarks.quality`.

Trains each recipe on every data set and split of the panel, as the command line does, and compares
it, on the same rows, with the tuned mixture (20 to 320 components), a larger one, the generator
where the rows have one, and the first recipe. What is found is kept in the folder: a second call
goes on where the first one ended. A folder belongs to one version of the code: begin another after
a change.
"""

import argparse
import os
import shlex
from pathlib import Path

import numpy as np

from benchmarks.quality import panel
from benchmarks.quality.judged_run import ROOT, Answer, Question, answer

HEADER = (
    "| data | recipe | splits | NLL | over the mixture | over the larger | over the generator "
    "| over the first recipe | recall@10, over the mixture's | training, s | command, s |"
)


def main() -> None:
    """Answers every question of the panel, and prints a table that grows by data set."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="validation rows of a few splits, K = 300, for choosing; else test rows of split "
        "seeds 10 and above, K = 1,000, to be looked at once",
    )
    parser.add_argument("--data", nargs="+", choices=panel.TEST_SEEDS, help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="split seeds instead of the panel's")
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME='CONFIG OPTION...'",
        help="a recipe and options of launch.py; can come again (best=best.py)",
    )
    parser.add_argument("--folder", type=Path, default=Path("models/quality"), help="%(default)s")
    options = parser.parse_args()
    shared = os.environ.get("JAXVAE_SHARED")
    if not shared:
        parser.error("JAXVAE_SHARED must name the folder that has data/ with the rows")
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    recipes = dict(_recipe(parser, text) for text in options.recipe or ["best=best.py"])
    seeds = panel.QUICK_SEEDS if options.quick else panel.TEST_SEEDS
    split, draws = ("val", 300) if options.quick else ("test", 1000)
    print(HEADER + "\n" + "|---" * HEADER.count(" | ") + "|---|")
    for name in options.data or seeds:
        answers: dict[str, list[Answer]] = {}
        for recipe, chosen in recipes.items():
            answers[recipe] = [
                answer(
                    Question(name, seed, recipe, chosen, split, draws),
                    shared=Path(shared).resolve() / "data",
                    folder=folder,
                )
                for seed in options.seeds or seeds.get(name, panel.TEST_SEEDS[name])
            ]
            print(_line(name, recipe, answers[recipe], next(iter(answers.values()))), flush=True)


def _recipe(parser: argparse.ArgumentParser, text: str) -> tuple[str, tuple[str, ...]]:
    """Splits NAME='CONFIG OPTION...' into the name and options of `launch.py`."""
    name, is_there, chosen = text.partition("=")
    config, *others = shlex.split(chosen) or [""]
    if not (is_there and config):
        parser.error(f"--recipe {text}: must be NAME='CONFIG OPTION...', such as best=best.py")
    return name, (f"--config={ROOT / 'configs' / config}", *others)


def _line(data: str, recipe: str, answers: list[Answer], first: list[Answer]) -> str:
    """Formats a recipe's line; NLL, so that less than 0 is better than what it is compared with."""
    nll = np.mean([-found.log_likelihood["model"].mean() for found in answers])
    cells = [data, recipe, str(len(answers)), f"{nll:.3f}"]
    cells += [
        _difference(
            [
                found.log_likelihood[other] - found.log_likelihood["model"]
                for found in answers
                if other in found.log_likelihood
            ]
        )
        for other in ("mixture", "larger", "generator")
    ]
    pairs = zip(answers, first, strict=True)
    cells.append(
        _difference(
            [before.log_likelihood["model"] - now.log_likelihood["model"] for now, before in pairs]
        )
        if answers is not first
        else ""
    )
    recalls = [_recall_difference(found) for found in answers if found.recalled]
    cells.append(_difference(recalls) if recalls else "")
    cells += [
        f"{np.median([getattr(found, name) for found in answers]):.0f}"
        for name in ("training_seconds", "seconds")
    ]
    return "| " + " | ".join(cells) + " |"


def _recall_difference(found: Answer) -> np.ndarray:
    """Returns each row's part in the difference of recall, whose mean is the difference itself."""
    model, mixture = (found.recalled[who].astype(float) for who in ("model", "mixture"))
    return (model[:, 0] - mixture[:, 0]) / model[:, 1].mean()


def _difference(values: list[np.ndarray]) -> str:
    """Formats the mean over splits of differences by row, and its standard error.

    With several splits that of the splits' means (they share rows, so it is a little small), with
    one that of its rows.
    """
    if not values:
        return ""
    means = np.array([value.mean() for value in values])
    spread = means if len(means) > 1 else values[0]
    error = spread.std(ddof=1) / np.sqrt(len(spread))
    return f"{means.mean():+.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
