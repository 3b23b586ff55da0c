"""Task of the paper: the accuracy of each network, by binary cross entropy (arXiv 2410.04209, section 6)."""

from nfn_transformer.training.tasks import ALL_TREES, TASKS, TAU, TaskEntry

TASKS.update(
    accuracy=TaskEntry(
        name="accuracy",
        help="the test accuracy, a number in [0, 1]; the best epoch has the highest validation tau",
        labels="accuracy",
        build="nfn_transformer.training.number_tasks:AccuracyTask",
        score=TAU,
        trees=ALL_TREES,
    )
)
