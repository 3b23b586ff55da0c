"""Task: the class of each network, by cross entropy."""

from nfn_transformer.training.tasks import TASKS, Score, TaskEntry

TASKS.update(
    classify=TaskEntry(
        name="classify",
        help="a class, named by text or a number; the best epoch has the highest validation accuracy",
        labels="class",
        build="nfn_transformer.training.class_task:ClassTask",
        fit="nfn_transformer.training.class_task:fit_classes",
        check="nfn_transformer.training.class_task:check_classes",
        score=Score("accuracy", "accuracy"),
        trees=("scikit-learn",),
    )
)
