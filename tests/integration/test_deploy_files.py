"""The files that people deploy with are what Ray accepts: Serve's config and the cluster launcher's."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray._common.utils import import_attr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from serve_app.config import bundled_plans, load_plan
from serve_app.model_check import check_models

ROOT = Path(__file__).parents[2]


def test_the_serve_config_is_valid_and_its_application_builds():
    """Serve's own schema takes the file, and its import path, with its arguments, gives router and pools."""
    config = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "serve_app/serve.yaml").read_text()))
    (application,) = config.applications
    assert (application.name, application.import_path) == ("framelane", "serve_app.app:build")
    # As the controller calls it: arguments as a dict, which Serve turns into what the builder's annotation says.
    built = call_user_app_builder_with_args_if_necessary(import_attr(application.import_path), application.args)
    assert built._bound_deployment.name == "router"


def test_the_cluster_config_is_what_the_launcher_takes():
    """What `ray up` does first: fill in the defaults, then check against Ray's own schema."""
    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))


@pytest.mark.parametrize("path", bundled_plans(), ids=lambda path: path.stem)
def test_every_bundled_plan_and_its_models_are_sound(path):
    """Their models travel with the package and take every canvas."""
    check_models(load_plan(path))
