"""A small Decision Transformer that imitates Meta-World's scripted policies, and adapts to a task it has not seen.

    python benches/paper/robot.py    # how often experts and the first model succeed, a task a line

A row is a window of CONTEXT steps up to now: states, actions before each state, returns to go and time steps; its label
is the expert's action now. PyTorch trains the first model on KNOWN tasks and exports it; eva-onnx does the rest. The
Decision Transformer of the paper is larger, saw 40 tasks, and has the actions of all steps of a window as targets.
"""

import numpy as np
import onnxruntime
import torch
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from starts import Task

KNOWN = ["reach-v3", "button-press-topdown-v3", "door-close-v3", "drawer-open-v3", "window-close-v3", "faucet-open-v3"]
NEW = "window-open-v3"
CONTEXT, STATES, ACTIONS = 6, 39, 4
# Steps of an episode at most, and steps after the first success that still count as a part of it.
LONGEST, AFTER_SUCCESS = 150, 5
# Returns are divided by this to be about 1.
RETURNS = 100.0
# Goals of a task: of the experts, of held-out rows, and of the episodes that are scored.
EXPERTS, HELD_OUT, SCORED = range(0, 20), range(20, 25), range(25, 50)
PRETRAINING = {"steps": 2000, "batch": 64, "rate": 5e-4}


class Policy(torch.nn.Module):
    """The action now [batch, ACTIONS] of a Decision Transformer, called `logits` for the loss."""

    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 64, "n_layer": 3, "n_head": 2, "max_ep_len": LONGEST}
        config = DecisionTransformerConfig(state_dim=STATES, act_dim=ACTIONS, n_positions=3 * CONTEXT, **sizes)
        self.transformer = DecisionTransformerModel(config)

    def forward(self, states, actions, returns_to_go, timesteps):
        mask = torch.ones_like(timesteps)
        made = self.transformer(
            states=states, actions=actions, returns_to_go=returns_to_go, timesteps=timesteps, attention_mask=mask
        )
        return made.action_preds[:, -1]


class World:
    """A task of Meta-World with its 50 goals."""

    def __init__(self, name):
        import metaworld
        from metaworld.policies import ENV_POLICY_MAP

        benchmark = metaworld.MT1(name, seed=0)
        self.environment, self.goals = benchmark.train_classes[name](), benchmark.train_tasks
        self.expert = ENV_POLICY_MAP[name]()

    def episode(self, goal, act):
        """States, actions, rewards and whether the task was done, of one episode; `act` is given the states so far."""
        self.environment.set_task(self.goals[goal])
        state, _ = self.environment.reset(seed=goal)
        states, actions, rewards, left = [state], [], [], None
        for _ in range(LONGEST):
            actions.append(np.clip(act(states, actions, rewards), -1, 1).astype(np.float32))
            state, reward, _, _, info = self.environment.step(actions[-1])
            rewards.append(reward)
            left = left - 1 if left is not None else AFTER_SUCCESS if info["success"] else None
            if left == 0:
                break
            states.append(state)
        return np.array(states[: len(actions)]), np.array(actions), np.array(rewards), left is not None

    def of_expert(self, goal):
        return self.episode(goal, lambda states, *_: self.expert.get_action(states[-1]))


def window(states, actions, returns, now):
    """What the policy reads at step NOW. Before the first step stands the first state, without an action."""
    steps = np.maximum(np.arange(now - CONTEXT + 1, now + 1), 0)
    # The action at a step is not known when it is chosen; those before the first step and now are zero.
    known = (np.arange(now - CONTEXT + 1, now + 1) >= 0) & (steps < now)
    done = np.array([actions[step] if is_known else np.zeros(ACTIONS) for step, is_known in zip(steps, known)])
    return {
        "states": np.array([states[step] for step in steps], dtype=np.float32),
        "actions": done.astype(np.float32),
        "returns_to_go": np.array([[returns[step]] for step in steps], dtype=np.float32) / np.float32(RETURNS),
        "timesteps": steps.astype(np.int64),
    }


def windows(name, goals):
    """Every step of the expert's episodes as a row, and the mean return of an episode."""
    world, rows, whole = World(name), [], []
    for states, actions, rewards, _ in (world.of_expert(goal) for goal in goals):
        returns = np.cumsum(rewards[::-1])[::-1]
        whole.append(returns[0])
        rows += [window(states, actions, returns, now) | {"label": actions[now]} for now in range(len(actions))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, float(np.mean(whole))


def pretrained():
    """A policy for the KNOWN tasks."""
    torch.manual_seed(0)
    # Models as small as this are slower on several threads.
    torch.set_num_threads(1)
    arrays = [windows(name, EXPERTS)[0] for name in KNOWN]
    rows = {name: torch.from_numpy(np.concatenate([of[name] for of in arrays])) for name in arrays[0]}
    targets, policy = rows.pop("label"), Policy()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=PRETRAINING["rate"], weight_decay=1e-4)
    for _ in range(PRETRAINING["steps"]):
        batch = torch.randint(len(targets), (PRETRAINING["batch"],))
        optimizer.zero_grad()
        made = policy(**{name: values[batch] for name, values in rows.items()})
        torch.nn.functional.mse_loss(made, targets[batch]).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.25)
        optimizer.step()
    return policy.eval()


def export(policy, folder):
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"states": STATES, "actions": ACTIONS, "returns_to_go": 1}
    inputs = {name: torch.zeros(2, CONTEXT, width) for name, width in shapes.items()}
    inputs["timesteps"] = torch.zeros(2, CONTEXT, dtype=torch.int64)
    program = torch.onnx.export(
        policy,
        kwargs=inputs,
        dynamo=True,
        output_names=["logits"],
        dynamic_shapes={name: {0: "batch"} for name in inputs},
        verbose=False,
    )
    program.save(folder / "model.onnx")


def task(options, work):
    model = work / "model/model.onnx"
    if not model.is_file():
        export(pretrained(), model.parent)
    for name, goals in (("rows", EXPERTS), ("held-out", HELD_OUT)):
        work.mkdir(parents=True, exist_ok=True)
        np.savez(work / f"{name}.npz", **windows(NEW, goals)[0])
    return Task(
        name="robot",
        model=model,
        rows=work / "rows.npz",
        held_out=work / "held-out.npz",
        rank=4,
        rate=1e-3,
        rates=[1e-3, 3e-3, 1e-2, 3e-2],
        steps=100 if options.quick else 400,
        batch_size=32,
        init_batches=20,
        training=["--loss", "regression"],
        # It reads one number, so that its rank is 1 at most.
        selection=["--exclude-modules", "embed_return"],
    )


def success(program, task, folder):
    """The share of goals, which no row was about, that the trained policy reaches."""
    return success_of(program.merged(task, folder), NEW, SCORED)


def success_of(model, name, goals):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    world = World(name)
    wanted = np.mean([world.of_expert(goal)[2].sum() for goal in list(EXPERTS)[:5]])

    def act(states, actions, rewards):
        returns = wanted - np.concatenate([[0], np.cumsum(rewards)])
        feeds = window(states, actions, returns, len(states) - 1)
        return session.run(["logits"], {key: value[None] for key, value in feeds.items()})[0][0]

    return float(np.mean([world.episode(goal, act)[3] for goal in goals]))


if __name__ == "__main__":
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        export(pretrained(), Path(folder))
        for name in [*KNOWN, NEW]:
            world = World(name)
            experts = np.mean([world.of_expert(goal)[3] for goal in EXPERTS])
            print(f"{name}: expert {experts:.2f}, first model {success_of(Path(folder) / 'model.onnx', name, SCORED):.2f}")
