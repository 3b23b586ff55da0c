"""Jobs that commands start: as processes of this machine, or through submitit in a SLURM cluster."""
