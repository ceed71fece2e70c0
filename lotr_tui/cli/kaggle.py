"""The original corpus, from Kaggle."""

from pathlib import Path

from engine.errors import LotrError, UnusableInput

DATASET = "paultimothymooney/lord-of-the-rings-data"
FILE = "lotr_scripts.csv"


def fetch() -> Path:
    """Download the set, or find it in kagglehub's own cache; the path of its CSV.

    Raises:
        UnusableInput: kagglehub is not installed.
        LotrError: the download failed.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise UnusableInput("data fetch needs kagglehub; pip install 'lotr-tui[kaggle]'") from error
    try:
        path = Path(kagglehub.dataset_download(DATASET)) / FILE
    except Exception as error:  # kagglehub raises what its HTTP client does
        raise LotrError(f"{DATASET} could not be downloaded: {error}; check the network and try again") from error
    if not path.is_file():
        raise LotrError(
            f"{DATASET} no longer has {FILE}; the files there: {', '.join(p.name for p in path.parent.iterdir())}"
        )
    return path
