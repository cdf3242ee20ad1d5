"""Policies made again from what checkpoints and artifacts say of them."""

import importlib.util
import sys
from typing import Any

from gipo.errors import GipoError
from gipo.networks import ActorCritic
from gipo.policy import Policy


def build(description: dict[str, Any]) -> Policy:
    """The policy that `Policy.description` describes, freshly initialised.

    Raises:
        GipoError: when the description is damaged, or names a class that is no policy or network.
    """
    try:
        body = description["network"]
        network = _resolve(body["class_path"], ActorCritic)
        policy = _resolve(description["class_path"], Policy)
        return policy(
            policy.spaces_kind(**description["spaces"]),
            network=lambda *sizes: network(*sizes, **body["init_args"]),
            **description["init_args"],
        )
    except GipoError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise GipoError(f"damaged policy description: {error!r}") from error


def _resolve(class_path: str, base: type) -> Any:
    module, _, name = class_path.rpartition(".")
    # Importing runs code, so a file may only name what is ours or what the program has already imported.
    if module.startswith("gipo.") and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise GipoError(f"unknown class {class_path!r} in the checkpoint; import its module first if it is yours")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise GipoError(f"{class_path!r} is not a {base.__name__}")
    return found
