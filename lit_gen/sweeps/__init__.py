"""W&B sweep files without internet: Optuna samples and prunes, any number of workers share a folder."""
