from .arviz_groups import GroupError as GroupError
from .sampling import SamplingError as SamplingError
from .settings import FitError as FitError, Settings as Settings
from .stagemodel import ModelError as ModelError, StageModel as StageModel
