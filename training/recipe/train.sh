#!/usr/bin/env bash
# The paper's recipe on nnU-Net v2: teachers -> pseudo-labels -> students -> exported weights.
#   training/recipe/train.sh RUN_FOLDER [folders of scans, as for python -m training.recipe.data]
# Each stage leaves a mark in RUN_FOLDER/done and is not done twice; a training that was killed goes on from its last
# checkpoint when this is started again. From the environment: FOLDS (how many teachers, 5), DEVICE (cuda, cpu),
# KINDS ("organ tumor"), TEACHER and STUDENT (configurations), KEEP (agreement of pseudo-labels, 0.8), and
# VISCERA_EPOCHS and VISCERA_ITERATIONS, which shorten the trainings.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8p' "$0"; exit 2; }
mkdir -p "$1"
run=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/../.." && pwd)
folds=${FOLDS:-5} kinds=${KINDS:-organ tumor} keep=${KEEP:-0.8}
teacher=${TEACHER:-teacher} student=${STUDENT:-student}
device=${DEVICE:-$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
export nnUNet_raw=$run/raw nnUNet_preprocessed=$run/preprocessed nnUNet_results=$run/results
mkdir -p "$run/done" "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"

stage() { # NAME COMMAND...
  local name=$1
  shift
  if [ -e "$run/done/$name" ]; then
    echo "== $name: done before"
    return
  fi
  echo "== $name"
  "$@"
  touch "$run/done/$name"
}

stage data python -m training.recipe.data "$nnUNet_raw" "$@"
for kind in $kinds; do
  case $kind in
    organ) labelled=Dataset021_Organ all=Dataset031_OrganStudent value=() ;;
    tumor) labelled=Dataset022_Tumor all=Dataset032_TumorStudent value=(--value tumor=14) ;;
    *) echo "error: no kind $kind: organ and tumor are known" >&2 && exit 2 ;;
  esac
  stage "$kind-plan" python -m training.recipe.plan "$labelled" "$teacher"
  teachers=()
  for ((fold = 0; fold < folds; fold++)); do
    stage "$kind-teacher-$fold" python -m training.recipe.fit "$labelled" "$teacher" "$fold" --trainer teacher --device "$device"
    teachers+=("$run/teachers/$kind-$fold")
    stage "$kind-teacher-$fold-export" python -m inference.export \
      "$nnUNet_results/$labelled/TeacherTrainer__nnUNetPlans__$teacher" "$run/teachers/$kind-$fold/$kind" --fold "$fold"
  done
  stage "$kind-pseudo-labels" python -m training.recipe.pseudo_labels "${teachers[@]}" --keep "$keep" \
    --scans "$nnUNet_raw/unlabelled" --dataset "$nnUNet_raw/$labelled" --into "$nnUNet_raw/$all"
  stage "$kind-student-plan" python -m training.recipe.plan "$all" "$student"
  stage "$kind-student" python -m training.recipe.fit "$all" "$student" all --trainer student --device "$device"
  stage "$kind-export" python -m inference.export "$nnUNet_results/$all/StudentTrainer__nnUNetPlans__$student" \
    "$run/weights/$kind" --fold all "${value[@]}" --trained-on "${TRAINED_ON:-training/recipe/train.sh on data of your own}"
done
echo "weights: $run/weights"
