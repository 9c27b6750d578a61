from .clusters import DesignWarning as DesignWarning
from .contents import DataError as DataError
from .datafiles import read_data as read_data
from .long_data import widen as widen
from .modelmatrix import DesignError as DesignError
from .serial import serial_measures as serial_measures
