#!/usr/bin/env bash
# Trains a model: makes .venv if it is missing, installs what is needed, runs launch.py.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
caller=$PWD
cd "$here"
. scripts/environment.sh

usage() {
    cat <<'TEXT'
usage: scripts/run_vae_training.sh [OPTIONS] [-- ARGUMENTS OF launch.py]

  --model NAME        config in configs/: best, whose sizes follow the data, or of the original
                      default, small, medium, large, beta_default, beta_balanced, beta_high
                      (medium)
  --trainer NAME      default, quick_test (10 epochs), tuned, tuned_iw, tuned_iw_wide or
                      distributed (default)
  --data NAME         embedded, musiccaps, msd or mtt (embedded)
  --epochs N          epochs to train
  --batch-size N      rows of a batch
  --lr X              learning rate
  --run-name NAME     the run's folder is outputs/vae_training/NAME, which must be new
  --resume            go on with the run that --run-name names
  -h, --help          this text

Anything after -- goes to launch.py as it is:

  scripts/run_vae_training.sh --model small -- --config.data.dataset_name=clips.csv

Outputs land in outputs/ and models/ of the folder the command is started in.
TEXT
}

model=medium trainer=default data=embedded run_name='' resume=''
overrides=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --resume) resume=yes; shift; continue ;;
        --) shift; break ;;
        --*=*) option=${1%%=*}; value=${1#*=}; shift ;;
        --model | --trainer | --data | --epochs | --batch-size | --lr | --run-name)
            [ $# -ge 2 ] || die "$1 needs a value; see --help"
            option=$1 value=$2; shift 2 ;;
        *) die "unknown argument '$1'; see --help, and put arguments of launch.py behind --" ;;
    esac
    case $option in
        --model) model=$value ;;
        --trainer) trainer=$value ;;
        --data) data=$value ;;
        --epochs) overrides+=("--config.trainer.max_epochs=$value") ;;
        --batch-size) overrides+=("--config.data.batch_size=$value") ;;
        --lr) overrides+=("--config.trainer.optimizer.lr=$value") ;;
        --run-name) run_name=$value ;;
        *) die "unknown option '$option'; see --help" ;;
    esac
done

[ -f "configs/$model.py" ] || die "--model $model: no configs/$model.py; see --help"
if [ -n "$run_name" ]; then
    [[ $run_name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
        die "--run-name $run_name: letters, digits, '.', '_' and '-' only"
    workdir=outputs/vae_training/$run_name
    if [ -e "$caller/$workdir" ] && [ -z "$resume" ]; then
        die "$workdir exists; add --resume to go on with it, or choose another --run-name"
    fi
    if [ ! -e "$caller/$workdir" ] && [ -n "$resume" ]; then
        die "$workdir does not exist, so there is nothing to resume"
    fi
    overrides+=("--workdir=$workdir")
elif [ -n "$resume" ]; then
    die "--resume needs --run-name"
fi

prepare requirements.txt
venv=$(cd "$venv" && pwd)
cd "$caller"
exec "$venv/bin/python" "$here/launch.py" \
    --config="$here/configs/$model.py:data=$data,trainer=$trainer" "${overrides[@]}" "$@"
