"""A stand-in for SLURM, for tests of commands that send jobs to a cluster."""

import os
import sys
from pathlib import Path

import pytest

# A queue that is a folder: jobs wait until a file `go` is there, and squeue lists those that have not ended.
SBATCH = """
import os, pathlib, subprocess, sys
queue = pathlib.Path(os.environ["STAND_IN_QUEUE"])
if (queue / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified: none")
if (queue / "one").exists() and list(queue.glob("*.live")):
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
job = str(1 + len(list(queue.glob("*.script"))))
(queue / f"{job}.script").write_text(pathlib.Path(sys.argv[-1]).read_text())
if not (queue / "lost").exists():  # a job that has ended before it began
    (queue / f"{job}.live").touch()
body = f"while [ ! -e {queue}/go ]; do sleep 0.05; done; bash {queue}/{job}.script; rm {queue}/{job}.live"
environment = {**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
subprocess.Popen(["bash", "-c", body], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(f"Submitted batch job {job}")
"""
SRUN = """
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1:] if words[0] == "--unbuffered" else words[2:]  # --output FILE, --error FILE
os.execvp(words[0], words)
"""
SQUEUE = """
import os, pathlib, sys
queue = pathlib.Path(os.environ["STAND_IN_QUEUE"])
if (queue / "silent").exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
live = [path.stem for path in queue.glob("*.live")]
print("\\n".join(live))
if os.environ.get("STAND_IN_GO"):
    (queue / "go").touch()
"""


def stand_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put the programs of a cluster first on PATH; the folder of its queue, in which jobs wait for a file `go`."""
    programs, queue = folder / "programs", folder / "queue"
    programs.mkdir()
    queue.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE)):
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("STAND_IN_QUEUE", str(queue))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        patch.delenv(name)
    return queue
