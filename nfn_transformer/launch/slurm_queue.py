"""The queue of SLURM, as squeue lists it; needs no accounting database."""

import getpass
import math
import subprocess
import sys
import time

from tqdm import tqdm

from nfn_transformer.errors import UserError

# A cluster should not be asked more often for its jobs.
_QUERY_SECONDS = 5.0
_FIRST_ANSWER_SECONDS = 60.0


class SlurmQueue:
    """Numbers of this user's jobs that wait or run."""

    def __init__(self):
        self._jobs: frozenset[str] = frozenset()
        self._tried = self._answered = -math.inf
        self._first: frozenset[str] | None = None

    def jobs(self) -> tuple[float, frozenset[str]]:
        """Return the time of SLURM's last answer (-inf: none yet) and the jobs in it. Asks every few seconds."""
        if time.monotonic() - self._tried >= _QUERY_SECONDS:
            self._query()
        return self._answered, self._jobs

    def jobs_at_first(self) -> frozenset[str]:
        """Return the jobs in SLURM's first answer.

        Raises:
            UserError: SLURM does not answer, so that jobs of an earlier command may be there unseen.
        """
        if self._first is None:
            end = time.monotonic() + _FIRST_ANSWER_SECONDS
            while self.jobs()[0] == -math.inf:
                if time.monotonic() > end:
                    raise UserError("--launcher slurm: squeue does not answer; jobs of an earlier command may be there")
                time.sleep(_QUERY_SECONDS)
            self._first = self._jobs
        return self._first

    def _query(self) -> None:
        self._tried = time.monotonic()
        argv = ["squeue", "--user", getpass.getuser(), "--noheader", "--format", "%A"]
        try:
            result = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UserError(f"--launcher slurm: squeue cannot be run ({error.strerror})") from None
        if result.returncode == 0:
            self._jobs, self._answered = frozenset(result.stdout.split()), self._tried
        else:
            tqdm.write(f"warning: squeue: {result.stderr.strip()}", file=sys.stderr)
