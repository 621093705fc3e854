"""What files call things: under which name observations, actions and states lie in files of others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

NAMES: dict[str, tuple[str, ...]] = {
    "pictures": ("image", "images", "pixels", "rgb", "frames", "video", "img"),
    "obs": ("obs", "observation", "observations"),
    "action": ("action", "actions", "act"),
    "state": ("state", "states", "observation.state", "proprio", "qpos"),
    "ends": ("ep_end", "episode_ends", "ends"),
    "offsets": ("ep_offset", "ep_offsets", "episode_starts", "starts"),
    "lengths": ("ep_len", "ep_lens", "episode_lengths", "lengths"),
    "index": ("episode_index", "ep_idx", "episode_id", "episode_ids"),
    "terminals": ("terminals", "dones", "timeouts"),
}


def named(there: Collection[str], what: str, keys: Mapping[str, str], where: str) -> str | None:
    """The name under which `what` lies: the one asked for in `keys`, else the first that is usual; None without one.

    >>> named(["pixels", "act"], "action", {}, "here"), named(["u"], "action", {"action": "u"}, "here")
    ('act', 'u')
    """
    asked = keys.get(what)
    if asked is not None:
        if asked not in there:
            raise ValueError(f"keys.{what} must be a name in {where}, got {asked!r}. There are: {', '.join(there)}.")
        return asked
    return next((name for name in NAMES.get(what, ()) if name in there), None)


def three(there: Collection[str], keys: Mapping[str, str], seen: str, where: str) -> tuple[str | None, ...]:
    """Names of observation, action and state. `seen` is "auto", "pictures" or "state".

    Pictures are taken before other observations; without either, the state is what is observed.
    """
    for key in keys:
        if key not in NAMES:
            raise ValueError(f"keys must be among {', '.join(NAMES)}, got {key!r}.")
    state = named(there, "state", keys, where)
    pictures, plain = named(there, "pictures", keys, where), named(there, "obs", keys, where)
    if "obs" in keys:
        obs = plain
    elif seen == "state":
        obs = plain if plain is not None and pictures is not None else state or plain
    else:
        obs = pictures or plain or state
    return obs, named(there, "action", keys, where), state
