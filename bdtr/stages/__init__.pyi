from .settings import FitError as FitError, Settings as Settings
from .stagemodel import ModelError as ModelError, StageModel as StageModel
