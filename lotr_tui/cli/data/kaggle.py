"""Download of the film dialogues from Kaggle."""

from pathlib import Path

from engine.errors import InvalidInputError, LotrError

DATASET = "paultimothymooney/lord-of-the-rings-data"
DATASET_FILE = "lotr_scripts.csv"


def fetch_dataset() -> Path:
    """Download the data set, or find it in the cache of kagglehub. Return the path of its CSV.

    Raises:
        InvalidInputError: If kagglehub is not installed.
        LotrError: If the download fails.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise InvalidInputError("data fetch needs kagglehub; pip install 'lotr-tui[kaggle]'") from error
    try:
        path = Path(kagglehub.dataset_download(DATASET)) / DATASET_FILE
    except Exception as error:  # kagglehub lets the exceptions of its HTTP client through
        raise LotrError(f"{DATASET} could not be downloaded: {error}; check the network and try again") from error
    if not path.is_file():
        names = ", ".join(file.name for file in path.parent.iterdir())
        raise LotrError(f"{DATASET} does not contain {DATASET_FILE} any more, but {names}; report this as a bug")
    return path
