"""Where a run's models lie: the manifest says it."""

from __future__ import annotations

import shutil

from actkit.evaluation.run_files import files_of_run, last_files_of_run
from actkit.networks.model_files import EXAMPLES


def test_a_file_that_the_manifest_does_not_name_is_no_model_of_the_run(tmp_path):
    run = shutil.copytree(EXAMPLES / "act_digits", tmp_path / "run")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    shutil.copy(checkpoint / "robust.safetensors", checkpoint / "another.safetensors")
    assert list(files_of_run(run)) == ["robust", "natural"]


def test_a_run_whose_last_checkpoint_is_the_chosen_one_has_no_other_models(tmp_path):
    run = shutil.copytree(EXAMPLES / "act_digits", tmp_path / "run")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    (run / "checkpoints/best").write_text(checkpoint.name)
    assert last_files_of_run(run) == {}
