"""Task: weights of an INR to weights that draw the edited picture, by the squared error of the pictures."""

from nfn_transformer.training.tasks import TASKS, Score, TaskEntry

EDITS = ("dilate", "erode", "gradient", "contrast")
"""Values of --edit, see `training.edit_task`."""

TASKS.update(
    edit=TaskEntry(
        name="edit",
        help="no label: weights of INRs become weights that draw the picture of --edit; the best epoch has the least "
        "squared error of the pictures",
        labels="none",
        build="nfn_transformer.training.edit_task:EditTask",
        fit="nfn_transformer.training.edit_task:fit_pictures",
        check="nfn_transformer.training.edit_task:check_editor",
        settings=("edit",),
        score=Score("loss", "mean squared error", rises=False, decimals=5),
    )
)
