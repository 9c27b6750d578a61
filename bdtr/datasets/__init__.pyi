from .projectstar import star as star, star_trial as star_trial
from .stepcounts import activity as activity, activity_trial as activity_trial
