"""MuJoCo pictures without a screen, fast: software rendering is 5 to 40 times faster without shadows, reflections, sky,
haze and multisampling."""

from __future__ import annotations

import ctypes.util
import os
import sys
from typing import Any

import numpy as np

FLAGS = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")


def choose_backend() -> None:
    """Before MuJoCo is first imported: a way to draw that needs no screen, where the user has not chosen one.

    For environments drawn by pygame likewise.

    OSMesa is the fastest on a processor, then EGL; without either MuJoCo still computes, and only drawing is refused.
    """
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or "mujoco" in sys.modules:
        return
    if ctypes.util.find_library("OSMesa"):
        os.environ["MUJOCO_GL"] = "osmesa"
        os.environ.setdefault("LP_NUM_THREADS", "1")  # of one process; several would wait for one another
    else:
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "disable"


class Camera:
    """One renderer per size of picture for one model, with everything slow switched off.

    lookat, distance   a camera above that point (m), x to the right and y up; without `lookat`, the model's first
                       camera, or MuJoCo's free one where it has none
    """

    def __init__(self, model: Any, lookat: tuple[float, float, float] | None = None, distance: float = 1.0) -> None:
        import mujoco

        self.mujoco, self.model = mujoco, model
        self.renderers: dict[int, Any] = {}
        model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 0
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0
        self.camera: Any = 0 if model.ncam else -1
        if lookat is not None:
            self.camera = mujoco.MjvCamera()
            self.camera.lookat[:], self.camera.distance = lookat, distance
            self.camera.elevation, self.camera.azimuth = -90.0, 90.0

    def look(self, data: Any, size: int) -> np.ndarray:
        """(size, size, 3) uint8 of the scene as `data` has it."""
        if size not in self.renderers:
            self.renderers[size] = self._renderer(size)
        renderer = self.renderers[size]
        renderer.update_scene(data, camera=self.camera)
        for flag in FLAGS:  # each update sets them anew
            renderer.scene.flags[getattr(self.mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        return renderer.render()

    def _renderer(self, size: int) -> Any:
        try:
            if os.environ.get("MUJOCO_GL") == "disable":
                raise RuntimeError("neither libOSMesa nor libEGL was found")
            return self.mujoco.Renderer(self.model, size, size)
        except (AttributeError, ImportError, OSError, RuntimeError, TypeError, self.mujoco.FatalError) as e:
            raise ValueError(
                f"MuJoCo must be able to draw without a screen (MUJOCO_GL={os.environ.get('MUJOCO_GL')}), got: {e}. "
                "Do: apt-get install libosmesa6 libgl1 libegl1, and start Python anew."
            ) from None
