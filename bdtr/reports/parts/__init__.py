"""The parts of a report, one file for each subject, in the order of the page."""
