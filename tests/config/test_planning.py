"""Theorems on plans: which records a study asks for, in which order, and by which notebook runs."""

import json
from itertools import pairwise

import pytest

from dwlt_lib.config import planning, specs, studies
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.planning import NOTEBOOKS, Job, expand, jobs, plan
from dwlt_lib.config.specs import OTHER_METHODS, record_id, upstream
from dwlt_lib.execution import costs
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TOUR = store.checkout() / "params" / "tour.yaml"


@pytest.fixture(params=["toy", "tour"])
def study(request, toy):
    return toy() if request.param == "toy" else read_study(TOUR)


def grid(**settings):
    block = {
        "pretraining": ["AT"],
        "method": ["IMP-ST"],
        "dataset": ["stripes"],
        "rounds": [2],
        "seeds": [0],
    }
    return {**block, **settings}


def of_kind(study, kind):
    return [spec for spec in plan(study).values() if spec.kind == kind]


def test_every_record_comes_after_those_it_builds_on(study):
    seen = set()
    for id, spec in plan(study).items():
        assert id == record_id(spec)
        assert {record_id(up) for up in upstream(spec)} <= seen
        seen.add(id)


def test_jobs_make_exactly_the_plan_and_no_record_twice(study):
    made = [record_id(spec) for job in jobs(study) for spec in expand(study, job)]
    assert len(made) == len(set(made)) and set(made) == set(plan(study))


def test_jobs_make_the_whole_plan_when_a_ticket_is_attacked_on_its_own_source(toy):
    study = toy(
        grid=[grid(dataset=["blobs"])], landscapes=[], transfer_attacks=[grid(dataset=["blobs"])]
    )
    assert {record_id(spec) for job in jobs(study) for spec in expand(study, job)} == set(
        plan(study)
    )


def test_a_plan_holds_every_combination_of_a_grid_and_its_dense_networks(toy):
    study = toy(
        grid=[
            grid(
                pretraining=["STD", "AT"],
                method=["IMP-ST", "RP"],
                fraction=[1.0, 0.5],
                rounds=[1, 3],
                regime=["ST", "AT"],
                seeds=[0, 1, 2],
            )
        ],
        landscapes=[],
        transfer_attacks=[],
    )
    rows = [specs.columns(spec) for spec in of_kind(study, "transfer")]
    at = {
        (r["pretraining"], r["method"], r["fraction"], r["regime"], r["rounds"], r["seed"])
        for r in rows
    }
    sparse = {
        (p, m, f, g, k, s)
        for p in ("STD", "AT")
        for m in ("IMP-ST", "RP")
        for f in (1.0, 0.5)
        for g in ("ST", "AT")
        for k in (1, 3)
        for s in range(3)
    }
    dense = {(p, "dense", f, g, 0, s) for p, _, f, g, _, s in sparse}
    assert len(rows) == len(at) == 96 + 24 and at == sparse | dense
    assert [spec.rounds for spec in of_kind(study, "mask")] == [1, 2, 3] * 4


def test_masks_alone_can_be_asked_for(toy):
    only = toy(
        grid=[],
        masks=[{"pretraining": ["STD", "AT"], "method": ["IMP-ST"], "rounds": [2, 4]}],
        landscapes=[],
        transfer_attacks=[],
    )
    assert [(spec.theta.pretraining, spec.rounds) for spec in of_kind(only, "mask")] == [
        (p, k) for p in ("STD", "AT") for k in (1, 2, 3, 4)
    ]
    assert {spec.kind for spec in plan(only).values()} == {"pretraining", "mask"}


def test_the_dense_network_has_one_id_whatever_the_method(toy):
    study = toy()
    for keep in ((1.0, "AT"), (0.5, "ST")):
        ids = {
            record_id(planning.transfer(study, "AT", method, "stripes", keep[0], keep[1], 0, 0))
            for method in ("IMP-ST", "IMP-AT", "OMP", "RP")
        }
        assert len(ids) == 1
    assert planning.mask(study, "AT", "IMP-ST", 0) is None


def test_a_ticket_is_shared_by_studies_that_describe_it_alike(toy):
    one, other = toy(name="one"), toy(name="other", title="the same, renamed")
    assert list(plan(one)) == list(plan(other))
    again = plan(toy(seed=1))
    assert [record_id(spec) for spec in again.values() if record_id(spec) in plan(one)] == [
        record_id(planning.surrogate(one, "stripes"))
    ]  # whose seed is its own


@pytest.mark.parametrize(
    "change, moved",
    [
        (dict(seed=1), {"pretraining", "mask", "transfer"}),
        (dict(mask_seed=1), {"mask", "transfer"}),
        (dict(subset_seed=1), {"transfer"}),
        (dict(evaluation_steps=3), {"pretraining", "mask", "transfer"}),
        (dict(prune_fraction=0.3), {"mask", "transfer"}),
    ],
)
def test_each_seed_moves_only_what_depends_on_it(toy, change, moved):
    settings = dict(grid=[grid()], landscapes=[], transfer_attacks=[])
    was, now = plan(toy(**settings)), plan(toy(**settings, **change))
    gone = {spec.kind for id, spec in was.items() if id not in now}
    assert gone == moved
    assert moved == {"pretraining", "mask", "transfer"} or set(was) & set(now)


def test_the_seed_of_masks_means_nothing_to_one_shot_pruning(toy):
    a, b = toy(), toy(mask_seed=7)
    assert planning.mask(a, "AT", "OMP", 2) == planning.mask(b, "AT", "OMP", 2)
    assert planning.mask(a, "AT", "RP", 2) != planning.mask(b, "AT", "RP", 2)


def test_weights_are_kept_only_where_a_landscape_or_an_attack_needs_them(toy):
    keeps = {
        (s.regime, s.fraction, s.mask.rounds if s.mask else 0): s.keep
        for s in of_kind(toy(), "transfer")
    }
    assert keeps[("AT", 1.0, 2)] == "trajectory"  # a landscape, and an attack besides
    assert keeps[("AT", 1.0, 0)] == "selected"  # an attack
    assert keeps[("ST", 1.0, 2)] == keeps[("ST", 0.5, 3)] == "none"


def test_overrides_apply_to_what_they_name_and_later_ones_win(toy):
    study = toy(
        overrides=[
            {"recipe": {"batch": 20}},
            {"fraction": 0.5, "recipe": {"batch": 21, "lr": 0.5}},
            {"regime": "ST", "dataset": "stripes", "fraction": 0.5, "recipe": {"batch": 22}},
            {"dataset": "blobs", "recipe": {"batch": 99}},
        ]
    )

    def recipe(fraction, regime):
        return planning.transfer(study, "AT", "IMP-ST", "stripes", fraction, regime, 2, 0).recipe

    assert [recipe(1.0, "AT").batch, recipe(0.5, "AT").batch, recipe(0.5, "ST").batch] == [
        20,
        21,
        22,
    ]
    assert [recipe(1.0, "AT").lr, recipe(0.5, "ST").lr] == [0.1, 0.5]
    assert planning.theta(study, "AT").recipe.batch == 32  # overrides are of transfers


def test_eps_belongs_to_the_data_set_unless_it_is_set(toy):
    study = toy()
    ticket = planning.transfer(study, "AT", "IMP-ST", "stripes", 1.0, "AT", 2, 0)
    assert (ticket.recipe.attack.eps, ticket.recipe.attack.alpha, ticket.recipe.attack.steps) == (
        0.1,
        0.05,
        2,
    )
    assert (ticket.evaluation.eps, ticket.evaluation.alpha, ticket.evaluation.steps) == (
        0.1,
        0.05,
        2,
    )
    set_ = toy(overrides=[{"recipe": {"eps": 0.2, "alpha": 0.07}}])
    attack = planning.transfer(set_, "AT", "IMP-ST", "stripes", 1.0, "AT", 2, 0)
    assert (attack.recipe.attack.eps, attack.recipe.attack.alpha, attack.evaluation.eps) == (
        0.2,
        0.07,
        0.1,
    )


def test_regimes_face_no_attack_one_step_or_all_of_them(toy):
    study = toy()
    assert planning.theta(study, "STD").recipe.attack is None
    fast = planning.theta(study, "FAT").recipe.attack
    assert (fast.steps, fast.alpha) == (1, pytest.approx(1.25 * fast.eps))  # Wong et al. 2020
    masks = {
        m: planning.mask(study, "STD", m, 2).retrain for m in ("IMP-ST", "IMP-AT", "OMP", "RP")
    }
    assert masks["IMP-ST"].attack is None and masks["IMP-AT"].attack.steps == 2
    assert masks["OMP"] is None and masks["RP"] is None


def test_the_surrogate_is_another_architecture_and_seed_trained_downstream(toy):
    found = planning.surrogate(toy(), "stripes")
    assert (found.pretraining, found.arch, found.data.name, found.seed) == (
        "AT",
        "resnet20",
        "stripes",
        1000,
    )
    assert (
        found.recipe.epochs == 1 and found.recipe.attack.steps == 3
    )  # AT's settings but for its own


def test_jobs_share_all_but_rounds_and_seeds_and_are_hashable(study):
    found = jobs(study)
    keys = [
        job.model_copy(update={"rounds": (), "seeds": ()}) for job in found if job.rounds != (0,)
    ]
    assert len(set(keys)) == len(keys)
    for job in found:
        assert list(job.rounds) == sorted(set(job.rounds)) and list(job.seeds) == sorted(
            set(job.seeds)
        )
        assert job.kind in NOTEBOOKS and (job.kind != "data_efficiency" or job.fraction < 1)
        assert (job.kind == "data_efficiency") == (
            job.kind in ("transfer", "data_efficiency") and job.fraction < 1
        )


def test_jobs_stand_in_the_order_of_what_they_build_on(study):
    made = set()
    for job in jobs(study):
        own = {record_id(spec) for spec in expand(study, job)}
        assert all(
            record_id(up) in made | own for spec in expand(study, job) for up in upstream(spec)
        )
        made |= own


@pytest.mark.parametrize("kind", NOTEBOOKS)
def test_a_compute_notebooks_parameters_are_its_jobs_fields(kind):
    papermill = pytest.importorskip("papermill")
    name, fields = NOTEBOOKS[kind]
    path = store.checkout() / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        pytest.skip(f"{name} is not written yet")
    found = papermill.inspect_notebook(str(path))
    assert set(found) == {"params", *fields, "device"}
    values = {field: eval(found[field]["default"], {}) for field in fields}
    job = Job(
        kind=kind,
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        },
    )
    params = path.parent / eval(found["params"]["default"], {})
    planned = plan(read_study(params))
    assert all(
        record_id(spec) in planned for spec in expand(read_study(params), job)
    )  # nothing but the study


def test_a_jobs_fields_are_exactly_those_its_notebooks_pass_on():
    used = {field for _, fields in NOTEBOOKS.values() for field in fields}
    assert used == set(Job.model_fields) - {"kind"}


def test_a_plan_goes_through_json(toy):
    study = toy()
    assert list(
        plan(type(study).model_validate_json(json.dumps(study.model_dump(mode="json"))))
    ) == list(plan(study))


def test_rounds_of_imp_build_on_each_other_down_to_theta(toy):
    ladder = [planning.mask(toy(), "AT", "IMP-ST", k) for k in (1, 2, 3, 4)]
    assert all(upstream(high) == (high.theta, low) for low, high in pairwise(ladder))


def test_the_catalogues_rows_are_found_by_name_and_a_studys_own_come_first(toy):
    study = toy()
    assert studies.dataset(study, "digits") is CATALOGUE["digits"]
    assert studies.dataset(study, "stripes").eps == 0.1
    with pytest.raises(ValueError, match="'stripe' is unknown.*stripes"):
        studies.dataset(study, "stripe")


def test_how_a_study_computes_reaches_every_description_and_changes_its_id(toy):
    plain = toy()
    for setting, reads in (
        (
            {"precision": "bf16"},
            lambda spec: spec.recipe.precision == "bf16" == spec.recipe.attack.precision,
        ),
        ({"attack_bn": "eval"}, lambda spec: spec.recipe.attack.bn == "eval"),
        ({"evaluation_precision": "bf16"}, lambda spec: spec.evaluation.precision == "bf16"),
        (
            {"evaluation_restarts": 3},
            lambda spec: spec.evaluation.restarts == 3 and spec.recipe.attack.restarts == 1,
        ),
        ({"ra": "any"}, lambda spec: spec.ra == "any"),
        ({"deterministic": False}, lambda spec: not spec.recipe.deterministic),
    ):
        adversarial = [
            spec
            for spec in plan(toy(**setting)).values()
            if spec.kind in ("pretraining", "transfer") and spec.recipe.attack
        ]
        assert adversarial and all(map(reads, adversarial)), setting
        assert not {record_id(spec) for spec in adversarial} & set(plan(plain)), setting
    for spec in plan(plain).values():
        if spec.kind == "transfer" and spec.recipe.attack:  # the authors' algorithm in fp32
            assert (spec.recipe.precision, spec.recipe.attack.precision, spec.recipe.attack.bn) == (
                "fp32",
                "fp32",
                "train",
            )
            assert (spec.evaluation.precision, spec.ra) == ("fp32", "last")


def test_one_start_is_the_default_of_an_evaluation_and_costs_what_it_did(toy):
    """Ids hash the attack with its restarts, so the default's stay what they were before."""
    plain, once = toy(), toy(evaluation_restarts=1)
    assert list(plan(plain)) == list(plan(once))
    assert all(
        spec.evaluation.restarts == 1
        for spec in plan(plain).values()
        if spec.kind in ("pretraining", "transfer")
    )
    transfers = [of_kind(toy(evaluation_restarts=n), "transfer")[0] for n in (1, 2, 3)]
    costs_of = [costs.cost(spec) for spec in transfers]
    assert costs_of[2] > costs_of[1] > costs_of[0]


CONTROLS = ["IMP-ST-shuffled", "IMP-ST-reinit", "IMP-ST-transplant"]


def alone(toy, *blocks, **settings):
    return toy(grid=list(blocks), landscapes=[], transfer_attacks=[], **settings)


def test_seeds_of_theta_mask_and_subset_are_lists_of_their_own_and_default_to_the_studys(toy):
    seeds = dict(theta_seeds=[0, 4], mask_seeds=[1, 2], subset_seeds=[3, 5, 6])
    named = ("theta_seed", "mask_seed", "subset_seed", "rounds")
    rows = [specs.columns(s) for s in of_kind(alone(toy, grid(**seeds)), "transfer")]
    sparse = {(t, m, u, 2) for t in (0, 4) for m in (1, 2) for u in (3, 5, 6)}
    dense = {(t, 0, u, 0) for t in (0, 4) for u in (3, 5, 6)}  # one for all masks
    assert {tuple(row[name] for name in named) for row in rows} == sparse | dense
    assert len(rows) == 2 * (12 + 6)  # ST and AT
    own = dict(seed=7, mask_seed=8, subset_seed=9)
    (ticket,) = {
        tuple(specs.columns(s)[name] for name in named)
        for s in of_kind(alone(toy, grid(), **own), "transfer")
        if s.mask
    }
    assert ticket == (7, 8, 9, 2)
    written_out = grid(theta_seeds=[7], mask_seeds=[8], subset_seeds=[9], dense_seeds=[0])
    assert list(plan(alone(toy, grid(), **own))) == list(plan(alone(toy, written_out, **own)))


def test_dense_may_have_more_seeds_than_levels_and_those_of_several_blocks_unite(toy):
    study = alone(
        toy,
        grid(seeds=[0, 1], dense_seeds=[0, 1, 2, 3]),
        grid(method=["RP"], seeds=[0, 5]),
        grid(theta_seeds=[1], seeds=[0]),
    )
    found = {}
    for spec in of_kind(study, "transfer"):
        row = specs.columns(spec)
        found.setdefault((row["method"], row["theta_seed"], row["regime"]), []).append(row["seed"])
    for regime in ("ST", "AT"):
        assert sorted(found["dense", 0, regime]) == [0, 1, 2, 3, 5]
        assert sorted(found["dense", 1, regime]) == [0]
        assert sorted(found["IMP-ST", 0, regime]) == [0, 1]


def test_one_shot_pruning_has_one_mask_however_many_seeds_of_masks_there_are(toy):
    study = alone(toy, grid(method=["OMP", "RP"], mask_seeds=[1, 2]))
    methods = [spec.mask.method for spec in of_kind(study, "transfer") if spec.mask]
    assert methods.count("RP") == 2 * methods.count("OMP") == 4


def test_methods_that_draw_nothing_have_one_mask_and_iterative_ones_the_recipe_of_theirs(toy):
    study = alone(toy, grid(method=OTHER_METHODS, rounds=[3], mask_seeds=[1, 2]))
    for spec in of_kind(study, "transfer"):
        if m := spec.mask:
            assert (m.seed == 0) == m.method.startswith(("OMP", "SynFlow"))
            iterative = m.method.startswith("IMP-ST")
            retrain = planning.mask(study, "AT", "IMP-ST", 3).retrain
            assert m.retrain == (retrain if iterative else None)


def test_scores_on_images_read_ten_of_the_source_a_class_and_cost_little(toy):
    study = alone(toy, grid(method=["SNIP", "GraSP", "SynFlow", "IMP-ST"], rounds=[2]))
    masks = {s.method: s for s in of_kind(study, "mask") if s.rounds == 2}
    source = masks["SNIP"].theta.data
    for method in ("SNIP", "GraSP"):
        assert masks[method].images == 10 * source.classes
        assert specs.reads(masks[method]) == ((source, "train"),)
        assert 0 < costs.cost(masks[method]) < costs.cost(masks["IMP-ST"])
    assert specs.reads(masks["SynFlow"]) == () and masks["SynFlow"].images == 0
    few = source.model_copy(update={"train_images": 20})
    study = study.model_copy(update={"data": {**study.data, source.name: few}})
    assert planning.mask(study, "AT", "SNIP", 2).images == 20


def test_two_of_four_is_one_level_of_half_the_weights(toy):
    assert [specs.level_of_half(fraction) for fraction in (0.1, 0.2, 0.5, 0.9)] == [7, 3, 1, 1]
    assert specs.sparsity_of_level("OMP-2of4", 3, 0.2) == 0.5
    assert specs.sparsity_of_level("OMP-2of4", 2, 0.2) == specs.ladder(2)
    assert "50.0 %" in specs.label(planning.mask(toy(), "AT", "IMP-ST-2of4", 3))
    alone(toy, grid(method=["OMP-2of4"], rounds=[0, 3]))
    for rounds in ([2], [3, 6]):
        with pytest.raises(ValueError, match=r"grid.0.rounds=.*OMP-2of4 is one level.*\[3\]"):
            alone(toy, grid(method=["OMP-2of4"], rounds=rounds))


def test_a_control_is_imp_st_but_for_one_thing(toy):
    study = alone(toy, grid(method=["IMP-ST", *CONTROLS]))
    found = {specs.method_of(s): s for s in of_kind(study, "transfer") if s.regime == "AT"}
    assert set(found) == {"dense", "IMP-ST", *CONTROLS}
    ticket = found["IMP-ST"]
    mask = ticket.mask
    other_theta = ticket.theta.model_copy(update={"seed": 1})
    differs = {
        "IMP-ST-shuffled": {"mask": mask.model_copy(update={"method": "IMP-ST-shuffled"})},
        "IMP-ST-reinit": {"weights": "reinitialized"},
        "IMP-ST-transplant": {"mask": mask.model_copy(update={"theta": other_theta})},
    }
    for method, update in differs.items():
        assert found[method] == ticket.model_copy(update=update), method
        assert specs.columns(found[method])["method"] == method
        assert specs.columns(found[method])["theta_seed"] == 0
    assert upstream(found["IMP-ST-shuffled"].mask) == (ticket.theta, mask)
    assert costs.cost(found["IMP-ST-shuffled"].mask) == 0 < costs.cost(mask)
    # the ladder of the other theta_p is all that controls need besides IMP-ST's own
    assert [spec.seed for spec in of_kind(study, "pretraining")] == [0, 1]
    masks = [(s.method, s.theta.seed, s.rounds) for s in of_kind(study, "mask")]
    assert sorted(masks) == sorted(
        (method, seed, k)
        for method, seed in (("IMP-ST", 0), ("IMP-ST", 1), ("IMP-ST-shuffled", 0))
        for k in (1, 2)
    )


def test_jobs_make_the_plan_and_no_record_twice_with_controls_and_seeds(toy):
    every = grid(method=["IMP-ST", "OMP", *CONTROLS], theta_seeds=[0, 1], mask_seeds=[0, 2])
    attacked = grid(method=["IMP-ST-reinit", "RP"], rounds=[0, 2], seeds=[0, 1])
    study = toy(grid=[every, grid(dense_seeds=[0, 3])], transfer_attacks=[attacked])
    made = [record_id(spec) for job in jobs(study) for spec in expand(study, job)]
    assert len(made) == len(set(made)) and set(made) == set(plan(study))
    keep = {}
    for spec in of_kind(study, "transfer"):
        row = specs.columns(spec)
        if row["regime"] == "AT":
            seeds = row["theta_seed"], row["mask_seed"], row["seed"]
            keep[row["method"], *seeds] = spec.keep
    assert keep["IMP-ST-reinit", 0, 0, 0] == keep["dense", 0, 0, 1] == "selected"
    assert keep["IMP-ST-reinit", 1, 0, 0] == keep["IMP-ST-reinit", 0, 2, 0] == "none"
    assert keep["dense", 0, 0, 3] == keep["dense", 1, 0, 0] == "none"


def test_a_theta_from_a_file_has_no_other_seeds(toy):
    weights = {"AT": {"file": "theta.safetensors"}}
    for block in (grid(theta_seeds=[0, 1]), grid(method=["IMP-ST-transplant"])):
        with pytest.raises(ValueError, match=r"theta_AT comes from a file.*seed 1; take .* out"):
            alone(toy, block, weights=weights)
    assert (
        specs.columns(of_kind(alone(toy, grid(), weights=weights), "transfer")[0])["theta_seed"]
        == 0
    )


def test_labels_of_records_tell_seeds_that_are_not_the_usual_ones(toy):
    study = alone(toy, grid(theta_seeds=[0, 3], mask_seeds=[0, 5], subset_seeds=[0, 7]))
    labels = [specs.label(spec) for spec in plan(study).values()]
    assert len(set(labels)) == len(labels)
    assert any("theta seed 3, mask seed 5, subset seed 7" in line for line in labels)
    assert not any(f"{name} seed 0" in line for line in labels for name in ("theta", "mask"))
