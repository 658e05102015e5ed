"""`i3dzoo recipes`."""

from typing import Any

from i3dzoo.cli._catalog import Catalog, Shelf
from i3dzoo.resources import package_data
from i3dzoo.training.recipe import load_recipe, recipe_names


def _read(name: str) -> dict[str, Any]:
    return load_recipe(name).to_dict()


command = Catalog(
    "recipe",
    {
        "recipe": Shelf(
            recipe_names,
            lambda name: package_data("training") / "recipes" / f"{name}.yaml",
            _read,
            "i3dzoo finetune DATASET --data DIR --from MODEL --recipe {}",
        )
    },
    {"title": "title"},
).group("Show, copy and check training recipes: how `i3dzoo finetune` trains.")
