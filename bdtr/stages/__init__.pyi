from .settings import FitError as FitError
from .settings import Settings as Settings
from .stagemodel import ModelError as ModelError
from .stagemodel import StageModel as StageModel
