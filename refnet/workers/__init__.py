"""Who computes independent jobs: this process, several processes, a dask cluster, or an executor given."""
