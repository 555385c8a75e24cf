"""The pipeline's stages, listed in `registry`: one file a stage, and a folder for what only that stage needs."""
