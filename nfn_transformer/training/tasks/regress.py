"""Task: any number of each network, by the squared error of what the training side standardises."""

from nfn_transformer.training.tasks import ALL_TREES, TASKS, TAU, TaskEntry

TASKS.update(
    regress=TaskEntry(
        name="regress",
        help="any number, standardised by the training side; the best epoch has the highest validation tau",
        labels="number",
        build="nfn_transformer.training.number_tasks:RegressTask",
        fit="nfn_transformer.training.number_tasks:fit_scale",
        score=TAU,
        trees=ALL_TREES,
    )
)
