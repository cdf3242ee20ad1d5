"""What the recipe was chosen from: factors, each with the default of then and alternatives, options of `gipo fit`."""

from collections.abc import Mapping

TASKS = [
    "reach-v3", "window-close-v3", "door-open-v3", "drawer-open-v3", "button-press-topdown-v3", "coffee-button-v3",
    "plate-slide-v3", "faucet-open-v3", "handle-pull-v3", "peg-insert-side-v3", "push-v3", "sweep-into-v3",
]  # fmt: skip

BY_AGE = ("model.objective=gipo.adaptive.AgeAwareGIPO", "model.objective.sigma_fresh=0.3")  # the default of then
Factors = Mapping[str, Mapping[str, tuple[str, ...]]]  # factor → level → options; the first level is the default

# Options are given in the order of factors: a policy's class before its options. Updates are named by rounds x batch,
# and by the steps between them where these are not 1 000; evaluations are 20 000 steps apart in any case.
FACTORS: Factors = {
    "policy": {
        "token33": ("model.policy=TokenPolicy",),
        "token11": ("model.policy=TokenPolicy", "model.policy.bins=11"),
        "token65": ("model.policy=TokenPolicy", "model.policy.bins=65"),
        "ordinal33": ("model.policy=OrdinalPolicy",),
        "mixture": ("model.policy=MixturePolicy",),
        "gaussian": ("model.policy=GaussianPolicy",),
        "gaussian, one scale": ("model.policy=GaussianPolicy", "model.policy.state_free_std=true"),
    },
    "network": {
        "256x256": (),
        "128x128": ("model.policy.network=SeparateNetworks", "model.policy.network.hidden=[128,128]"),
        "512x512": ("model.policy.network=SeparateNetworks", "model.policy.network.hidden=[512,512]"),
        "shared": ("model.policy.network=SharedEncoder", "model.policy.network.width=256"),
        "silu": ("model.policy.network=SeparateNetworks", "model.policy.network.activation=silu"),
        "all norms": ("model.policy.network=SeparateNetworks", "model.policy.network.norm=all"),
        "no norm": ("model.policy.network=SeparateNetworks", "model.policy.network.norm=none"),
        "gain 0.1": ("model.policy.network=SeparateNetworks", "model.policy.network.actor_gain=0.1"),
    },
    "updates": {
        "32x512": (),
        "16x512": ("data.rounds=16",),
        "32x256": ("data.batch=256",),
        "64x256": ("data.rounds=64", "data.batch=256"),
        "16x512/500": (
            "data.rounds=16",
            "data.frames_per_iteration=500",
            "trainer.check_val_every_n_epoch=40",
        ),
        "64x512/2000": (
            "data.rounds=64",
            "data.frames_per_iteration=2000",
            "trainer.check_val_every_n_epoch=10",
        ),
    },
    "buffer": {
        "10k": (),
        "5k": ("data.capacity=5000",),
        "20k": ("data.capacity=20000",),
        "40k": ("data.capacity=40000",),
    },
    "policy_lr": {"3e-4": (), "1e-4": ("model.policy_lr=1e-4",), "1e-3": ("model.policy_lr=1e-3",)},
    "value_lr": {"3e-4": ("model.value_lr=3e-4",), "1e-3": ("model.value_lr=1e-3",)},
    "decay": {"none": (), "to 0.1": ("model.lr_final=0.1",)},
    "objective": {
        "GIPO": ("model.objective=GIPO",),
        "GIPO 0.5": ("model.objective=GIPO", "model.objective.sigma=0.5"),
        "GIPO 2": ("model.objective=GIPO", "model.objective.sigma=2"),
        "PPO 0.2": ("model.objective=PPOClip",),
        "PPO 0.5": ("model.objective=PPOClip", "model.objective.clip=0.5"),
        "SAPO": ("model.objective=SAPO",),
        "age": (*BY_AGE, "model.objective.outward_only=false"),
        "age, outward": (*BY_AGE, "model.objective.outward_only=true"),
    },
    "kl": {
        "0.1": (),
        "0": ("model.kl_coef=0",),
        "0.03": ("model.kl_coef=0.03",),
        "0.3": ("model.kl_coef=0.3",),
        "target 0.01": ("model.kl_target=0.01",),
        "target 0.05": ("model.kl_target=0.05",),
    },
    "estimator": {
        "GAE": (),
        "lam0.9": ("data.estimator=GAE", "data.estimator.lam=0.9"),
        "lam0.98": ("data.estimator=GAE", "data.estimator.lam=0.98"),
        "gamma0.98": ("data.estimator=GAE", "data.estimator.gamma=0.98"),
        "gamma0.995": ("data.estimator=GAE", "data.estimator.gamma=0.995"),
        "VTrace": ("data.estimator=VTrace", "data.estimator.lam=0.95"),
    },
    "episodes": {"together": (), "staggered": ("data.collector.stagger=true",)},
    "simulators": {
        "20": (),
        "10": ("data.collector.num_envs=10",),
        "50": ("data.collector.num_envs=50",),
    },
    "entropy": {"0": (), "0.001": ("model.entropy_coef=0.001",), "0.01": ("model.entropy_coef=0.01",)},
    "floor": {
        "0.01": (),
        "0.001": ("model.policy.observation_floor=0.001",),
        "0.05": ("model.policy.observation_floor=0.05",),
    },
    "values": {
        "x0.1": (),
        "x0.01": ("data.reward_scale=0.01",),
        "x1": ("data.reward_scale=1",),
        "standardised": ("data.reward_scale=1", "model.value_scale=Standardised"),
        "popart": ("data.reward_scale=1", "model.value_scale=PopArt"),
        "two-hot": ("data.reward_scale=1", "model.value_scale=SymlogTwoHot"),
    },
    "gradient": {"1": (), "0.5": ("model.max_grad_norm=0.5",), "5": ("model.max_grad_norm=5",)},
}
