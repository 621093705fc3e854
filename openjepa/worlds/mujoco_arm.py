"""The arm of dm_control's reacher as a Gymnasium environment: its numbers, in a file of ours, without dm_control."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from openjepa.worlds.gym import import_gymnasium

# Lengths in m, angles in degrees; torque is 0.05 N m at full action. Masses follow from volumes at 1000 kg/m^3.
# Facts from dm_control's suite (reacher.xml): no contacts, joints along gravity (the arm lies flat), Euler, 20 ms.
ARM = """
<mujoco>
  <option timestep="0.02"><flag contact="disable"/></option>
  <visual><headlight ambient=".5 .5 .5" diffuse=".5 .5 .5"/></visual>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.01"/>
    <motor gear=".05" ctrlrange="-1 1" ctrllimited="true"/>
  </default>
  <worldbody>
    <geom type="plane" size=".4 .4 1" rgba=".2 .3 .4 1"/>
    <geom type="cylinder" fromto="0 0 0 0 0 .02" size=".011" rgba=".3 .5 .7 1"/>
    <body pos="0 0 .01">
      <geom type="capsule" fromto="0 0 0 .12 0 0" size=".01" rgba=".7 .5 .3 1"/>
      <joint name="joint0"/>
      <body pos=".12 0 0">
        <geom type="capsule" fromto="0 0 0 .1 0 0" size=".01" rgba=".7 .5 .3 1"/>
        <joint name="joint1" limited="true" range="-160 160"/>
        <body pos=".12 0 0"><geom type="sphere" size=".01" rgba=".7 .4 .2 1"/></body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="joint0"/><motor joint="joint1"/></actuator>
</mujoco>
"""


class Arm:
    """Two links on a table, moved by torques: observation joint0, joint1 (rad), v_joint0, v_joint1 (rad/s)."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        import mujoco

        gymnasium = import_gymnasium()
        self.mujoco = mujoco
        self.model = mujoco.MjModel.from_xml_string(ARM)
        self.data = mujoco.MjData(self.model)
        self.dt = float(self.model.opt.timestep)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))

    @property
    def unwrapped(self) -> Arm:
        return self

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.mujoco.mj_resetData(self.model, self.data)
        self.mujoco.mj_forward(self.model, self.data)
        return self.get_obs(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.data.ctrl[:] = action
        self.mujoco.mj_step(self.model, self.data)
        return self.get_obs(), 0.0, False, False, {}

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.mujoco.mj_forward(self.model, self.data)

    def get_obs(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])
