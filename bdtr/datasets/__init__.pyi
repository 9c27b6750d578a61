from .projectstar import star as star, star_trial as star_trial
from .schoolratings import adhd as adhd, adhd_trial as adhd_trial, adhd_truth as adhd_truth
from .stepcounts import activity as activity, activity_trial as activity_trial
